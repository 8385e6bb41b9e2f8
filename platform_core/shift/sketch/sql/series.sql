-- series: the series of one site whose patient-days are counted, the present revision of each.
--
-- reads    core__series
--          core__stage
-- params   $site      VARCHAR
--          $first_day DATE       first day, inclusive
--          $last_day  DATE       last day, inclusive
--          $keys      VARCHAR[]  only these series; NULL for all
-- returns  series_key VARCHAR, revision BIGINT, patient_key VARCHAR, stratum VARCHAR, day DATE
--          in key order; without what quality refused

WITH

-- the present revision of every accepted series
present AS (
    SELECT series_key, revision, patient_key, stratum, observed_on AS day
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
),

-- series that quality has refused
refused AS (
    SELECT series_key, revision
    FROM core__stage
    WHERE site = $site AND stage = 'quality' AND outcome = 'refused'
)

SELECT *
FROM present
WHERE day BETWEEN $first_day AND $last_day
    AND (series_key, revision) NOT IN (FROM refused)
    AND ($keys IS NULL OR series_key IN (SELECT unnest($keys)))
ORDER BY series_key
