-- volumes_by_recipe: volumes of one site that a recipe has made and no quality rule has stopped.
--
-- reads    core__series
--          core__stage
--          core__volume
-- params   $site   VARCHAR
--          $recipe VARCHAR  'native' for volumes as they came
-- returns  series_key VARCHAR, revision BIGINT, patient_key VARCHAR, patient_known BOOLEAN, modality VARCHAR,
--          observed_on DATE, volume_uri VARCHAR, one row per series_key at its present revision, in key order

WITH

-- the present revision of every accepted series
present AS (
    SELECT *
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
),

-- series that quality has stopped
stopped AS (
    SELECT DISTINCT series_key, revision
    FROM core__stage
    WHERE site = $site AND stage = 'quality' AND outcome = 'refused'
),

-- where the recipe's volumes lie
made AS (
    SELECT series_key, revision, volume_uri
    FROM present
    WHERE $recipe = 'native'
    UNION ALL
    SELECT series_key, revision, any_value(volume_uri)
    FROM core__volume
    WHERE site = $site AND recipe = $recipe AND $recipe <> 'native'
    GROUP BY series_key, revision
)

SELECT
    present.series_key,
    present.revision,
    present.patient_key,
    present.patient_known,
    present.modality,
    present.observed_on,
    made.volume_uri
FROM present
JOIN made USING (series_key, revision)
ANTI JOIN stopped USING (series_key, revision)
ORDER BY present.series_key
