-- first_features: features of each patient's first scan of each period.
--
-- reads    core__series
--          core__feature
-- params   $site        VARCHAR
--          $stratum     VARCHAR
--          $recipe      VARCHAR  `native`, or the recipe to prefer where a scan has several
--          $period_days INTEGER
-- returns  number BIGINT        0 for the site's first period
--          patient_key VARCHAR
--          and the feature columns of core__feature

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

-- one row of features per scan
measured AS (
    SELECT * EXCLUDE (site, recipe, stratum, observed_on)
    FROM core__feature
    WHERE site = $site AND (recipe = 'native') = ($recipe = 'native')
    QUALIFY row_number() OVER (
        PARTITION BY series_key
        ORDER BY recipe = $recipe DESC, revision DESC, run DESC
    ) = 1
)

SELECT firsts.number, firsts.patient_key, measured.* EXCLUDE (series_key, revision, run)
FROM firsts
JOIN measured USING (series_key)
ORDER BY number, patient_key
