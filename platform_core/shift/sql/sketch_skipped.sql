-- sketch_skipped: what of a pair of units could not be compared, and why.
--
-- reads    totals_of_all(unit VARCHAR, stratum VARCHAR, feature VARCHAR, n BIGINT)
--          pair(first VARCHAR, second VARCHAR)
-- params   $least INTEGER  patient-days of either unit
-- returns  first VARCHAR, second VARCHAR, stratum VARCHAR, feature VARCHAR
--          reason VARCHAR, `no_values` (one of them never has the feature in the stratum), `few_values`
--          in order

WITH

-- every stratum and feature that either unit of a pair has
asked AS (
    SELECT DISTINCT pair.first, pair.second, totals_of_all.stratum, totals_of_all.feature
    FROM pair
    JOIN totals_of_all ON unit IN (pair.first, pair.second)
    WHERE feature <> 'label'
)

SELECT
    asked.first,
    asked.second,
    asked.stratum,
    asked.feature,
    CASE WHEN x.n IS NULL OR y.n IS NULL THEN 'no_values' ELSE 'few_values' END AS reason
FROM asked
LEFT JOIN totals_of_all AS x ON (x.unit, x.stratum, x.feature) = (asked.first, asked.stratum, asked.feature)
LEFT JOIN totals_of_all AS y ON (y.unit, y.stratum, y.feature) = (asked.second, asked.stratum, asked.feature)
WHERE x.n IS NULL OR y.n IS NULL OR least(x.n, y.n) < $least
ORDER BY ALL
