-- periods: the periods in which one site sent scans of one stratum.
--
-- reads    core__series
-- params   $site        VARCHAR
--          $stratum     VARCHAR
--          $period_days INTEGER
-- returns  number BIGINT      0 for the site's first period
--          period_start DATE  a Monday
--          n_patients BIGINT

WITH

-- the Monday on or before the site's first scan
origin AS (
    SELECT date_trunc('week', min(observed_on))::DATE AS monday
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
),

scans AS (
    SELECT patient_key, (observed_on - monday) // $period_days AS number
    FROM core__series, origin
    WHERE site = $site AND stratum = $stratum AND volume_uri IS NOT NULL
)

SELECT
    number,
    (SELECT monday FROM origin) + (number * $period_days)::INTEGER AS period_start,
    count(DISTINCT patient_key) AS n_patients
FROM scans
GROUP BY number
ORDER BY number
