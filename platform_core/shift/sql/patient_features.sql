-- patient_features: the features of some series by one recipe, one row per series and feature, with the series named.
--
-- reads    core__feature
--          chosen(series_key VARCHAR, revision BIGINT)
-- params   $site   VARCHAR
--          $recipe VARCHAR
-- returns  series_key VARCHAR, feature VARCHAR, value DOUBLE
--          values that could not be told are left out

WITH

-- every column that is not about the row itself is a feature
wide AS (
    SELECT series_key, CAST(
        COLUMNS(* EXCLUDE (site, series_key, revision, recipe, stratum, observed_on, run)) AS DOUBLE
    )
    FROM core__feature
    WHERE site = $site
        AND recipe = $recipe
        AND EXISTS (FROM chosen WHERE (chosen.series_key, chosen.revision) = (core__feature.series_key, core__feature.revision))
    QUALIFY row_number() OVER (PARTITION BY series_key) = 1
)

SELECT series_key, feature, value
FROM (UNPIVOT wide ON COLUMNS(* EXCLUDE (series_key)) INTO NAME feature VALUE value)
WHERE isfinite(value)
ORDER BY feature, series_key
