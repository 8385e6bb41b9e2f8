-- patient_day_scores: score, embedding and label of every patient-day of one site, model and recipe.
--
-- reads    core__prediction
--          usable(series_key VARCHAR, revision BIGINT, patient_key VARCHAR, stratum VARCHAR, day DATE)
--          label_in_force(site VARCHAR, series_key VARCHAR, value VARCHAR)
-- params   $site      VARCHAR
--          $target    VARCHAR
--          $model     VARCHAR    model@version
--          $recipe    VARCHAR
-- returns  stratum VARCHAR, day DATE, patient_key VARCHAR
--          score DOUBLE      logit before calibration; finite, NULL without one
--          embedding FLOAT[] NULL without one
--          label VARCHAR     as spelt in the target; NULL without a label in force
--          in order of stratum, day and patient; of several scans the first in key order that has it

WITH

scored AS (
    SELECT series_key, revision, score, embedding
    FROM core__prediction
    WHERE site = $site AND target = $target AND model = $model AND recipe = $recipe
    QUALIFY row_number() OVER (PARTITION BY series_key, revision) = 1
),

labelled AS (
    SELECT series_key, any_value(value) AS label
    FROM label_in_force
    WHERE site = $site
    GROUP BY series_key
)

SELECT
    stratum,
    day,
    patient_key,
    arg_min(score, series_key) FILTER (isfinite(score)) AS score,
    arg_min(embedding, series_key) FILTER (len(list_filter(embedding, lambda x: NOT isfinite(x))) = 0) AS embedding,
    arg_min(label, series_key) AS label
FROM usable
LEFT JOIN scored USING (series_key, revision)
LEFT JOIN labelled USING (series_key)
WHERE score IS NOT NULL OR label IS NOT NULL
GROUP BY stratum, day, patient_key
ORDER BY stratum, day, patient_key
