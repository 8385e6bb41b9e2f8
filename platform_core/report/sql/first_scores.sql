-- first_scores: one model's score of each patient's first scan of each period.
--
-- reads    core__series
--          core__prediction
-- params   $site        VARCHAR
--          $stratum     VARCHAR
--          $model       VARCHAR  model@version
--          $period_days INTEGER
-- returns  number BIGINT        0 for the site's first period
--          patient_key VARCHAR
--          score DOUBLE         logit before calibration

WITH

-- the Monday on or before the site's first scan
origin AS (
    SELECT date_trunc('week', min(observed_on))::DATE AS monday
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
),

-- each patient's first scan of each period
firsts AS (
    SELECT series_key, patient_key, (observed_on - monday) // $period_days AS number
    FROM core__series, origin
    WHERE site = $site AND stratum = $stratum AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY patient_key, number
        ORDER BY observed_on, series_key, revision DESC
    ) = 1
),

-- one score per scan: that of the latest recipe
scored AS (
    SELECT series_key, score
    FROM core__prediction
    WHERE site = $site AND model = $model
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC, run DESC) = 1
)

SELECT number, patient_key, score
FROM firsts
JOIN scored USING (series_key)
ORDER BY number, patient_key
