-- features: every feature of some series by one recipe, one row per series and feature.
--
-- reads    core__feature
--          wanted(series_key VARCHAR, revision BIGINT, patient_key VARCHAR, observed_on DATE, arrived_at TIMESTAMPTZ)
-- params   $site   VARCHAR
--          $recipe VARCHAR
-- returns  series_key VARCHAR, revision BIGINT, patient_key VARCHAR, observed_on DATE, arrived_at TIMESTAMPTZ
--          feature VARCHAR, value DOUBLE, finite
--          in order of feature and series

WITH

-- every column that is not about the row itself is a feature
wide AS (
    SELECT series_key, COLUMNS(* EXCLUDE (site, series_key, revision, recipe, stratum, observed_on, run))::DOUBLE
    FROM core__feature
    WHERE site = $site
        AND recipe = $recipe
        AND EXISTS (
            FROM wanted
            WHERE (wanted.series_key, wanted.revision) = (core__feature.series_key, core__feature.revision)
        )
    QUALIFY row_number() OVER (PARTITION BY series_key) = 1
)

SELECT wanted.*, feature, value
FROM (UNPIVOT wide ON COLUMNS(* EXCLUDE series_key) INTO NAME feature VALUE value)
JOIN wanted USING (series_key)
WHERE isfinite(value)
ORDER BY feature, series_key
