-- site_scans: scans, patients and refusals of every site.
--
-- reads    core__series
--          core__stage
--          out__quality
-- returns  site VARCHAR, n_series BIGINT, n_patients BIGINT, last_scan_on DATE,
--          n_refused BIGINT  scans that a stage after the door refused
--          n_warned BIGINT   scans that fail a quality rule of severity `warn`

WITH

-- accepted scans at their present revision
scans AS (
    SELECT site, series_key, max(revision) AS revision, any_value(patient_key) AS patient_key,
        max(observed_on) AS observed_on
    FROM core__series
    WHERE volume_uri IS NOT NULL
    GROUP BY site, series_key
),

refused AS (
    SELECT DISTINCT site, series_key, revision
    FROM core__stage
    WHERE outcome = 'refused'
),

warned AS (
    SELECT DISTINCT site, series_key
    FROM out__quality
    WHERE severity = 'warn' AND NOT passed AND series_key IS NOT NULL
)

SELECT
    site,
    count(*) AS n_series,
    count(DISTINCT patient_key) AS n_patients,
    max(observed_on) AS last_scan_on,
    count(refused.series_key) AS n_refused,
    count(warned.series_key) AS n_warned
FROM scans
LEFT JOIN refused USING (site, series_key, revision)
LEFT JOIN warned USING (site, series_key)
GROUP BY site
ORDER BY site
