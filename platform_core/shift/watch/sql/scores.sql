-- scores: the score of some series by one model and recipe, as the feature `score`.
--
-- reads    core__prediction
--          wanted(series_key VARCHAR, revision BIGINT, patient_key VARCHAR, observed_on DATE, arrived_at TIMESTAMPTZ)
-- params   $site   VARCHAR
--          $model  VARCHAR  model@version
--          $recipe VARCHAR
-- returns  series_key VARCHAR, revision BIGINT, patient_key VARCHAR, observed_on DATE, arrived_at TIMESTAMPTZ
--          feature VARCHAR, value DOUBLE, finite
--          in order of series

SELECT wanted.*, 'score' AS feature, score AS value
FROM core__prediction
JOIN wanted USING (series_key, revision)
WHERE site = $site AND model = $model AND recipe = $recipe AND isfinite(score)
QUALIFY row_number() OVER (PARTITION BY series_key) = 1
ORDER BY series_key
