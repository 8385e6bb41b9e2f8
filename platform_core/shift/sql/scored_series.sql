-- scored_series: series with a score of one model by one recipe, and their label if they have one.
--
-- reads    core__series
--          core__prediction
--          label_in_force(site VARCHAR, series_key VARCHAR, value VARCHAR, sampling_probability DOUBLE)
-- params   $site   VARCHAR
--          $target VARCHAR
--          $model  VARCHAR  model@version
--          $recipe VARCHAR
-- returns  series_key VARCHAR, patient_key VARCHAR, patient_known BOOLEAN
--          label VARCHAR  the class as spelt in the target; NULL without a label in force
--          chance DOUBLE  with which the scan was chosen to be labelled, (0, 1]; NULL where not stated
--          score DOUBLE   logit before calibration, finite
--          embedding FLOAT[]  finite; NULL if any number of it is not
--          in key order

WITH

-- the present revision of every accepted series
present AS (
    SELECT series_key, revision, patient_key, patient_known
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
),

scored AS (
    SELECT
        series_key,
        revision,
        score,
        CASE WHEN len(list_filter(embedding, lambda x: NOT isfinite(x))) = 0 THEN embedding END AS embedding
    FROM core__prediction
    WHERE site = $site AND target = $target AND model = $model AND recipe = $recipe AND isfinite(score)
    QUALIFY row_number() OVER (PARTITION BY series_key, revision) = 1
),

labelled AS (
    SELECT
        series_key,
        any_value(value) AS label,
        any_value(CASE WHEN sampling_probability > 0 THEN least(sampling_probability, 1) END) AS chance
    FROM label_in_force
    WHERE site = $site
    GROUP BY series_key
)

SELECT series_key, patient_key, coalesce(patient_known, false) AS patient_known, label, chance, score, embedding
FROM present
JOIN scored USING (series_key, revision)
LEFT JOIN labelled USING (series_key)
ORDER BY series_key
