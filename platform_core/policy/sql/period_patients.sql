-- period_patients: the patients of one site, stratum and period, and whether they are labelled.
--
-- reads    core__series
--          core__stage
--          label_in_force
-- params   $site         VARCHAR
--          $stratum      VARCHAR
--          $period_start DATE
--          $period_end   DATE  last day, inclusive
-- returns  patient_key VARCHAR, is_labelled BOOLEAN

WITH

-- scans that quality refused do not flow on
refused AS (
    SELECT series_key, revision
    FROM core__stage
    WHERE site = $site AND stage = 'quality' AND outcome = 'refused'
),

-- scans at their present revision
scans AS (
    SELECT series_key, revision, patient_key, stratum, observed_on
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
)

SELECT
    patient_key,
    bool_or(series_key IN (SELECT series_key FROM label_in_force WHERE site = $site)) AS is_labelled
FROM scans
ANTI JOIN refused USING (series_key, revision)
WHERE stratum = $stratum AND observed_on BETWEEN $period_start AND $period_end
GROUP BY patient_key
ORDER BY patient_key
