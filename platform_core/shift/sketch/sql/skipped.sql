-- skipped: what of a pair of units could not be compared, and why.
--
-- reads    totals_of_all(unit VARCHAR, stratum VARCHAR, feature VARCHAR, n BIGINT)
--          pair(first VARCHAR, second VARCHAR)
--          bins(stratum VARCHAR, feature VARCHAR, upper DOUBLE, width DOUBLE)
-- params   $least INTEGER  patient-days of either unit
-- returns  first VARCHAR, second VARCHAR, stratum VARCHAR, feature VARCHAR
--          reason VARCHAR, `no_values` (one of them never has the feature in the stratum), `few_values`, or
--              `constant` (in the reference: only the distance in the feature's unit is missing)
--          in order

WITH

-- every stratum and feature that either unit of a pair has
asked AS (
    SELECT DISTINCT pair.first, pair.second, totals_of_all.stratum, totals_of_all.feature
    FROM pair
    JOIN totals_of_all ON unit IN (pair.first, pair.second)
    WHERE feature <> 'label'
),

-- features whose edges coincide
constant AS (
    SELECT stratum, feature
    FROM bins
    GROUP BY stratum, feature
    HAVING sum(width) <= 1e-9 * max(abs(upper))
)

SELECT
    asked.first,
    asked.second,
    asked.stratum,
    asked.feature,
    CASE
        WHEN x.n IS NULL OR y.n IS NULL THEN 'no_values'
        WHEN least(x.n, y.n) < $least THEN 'few_values'
        ELSE 'constant'
    END AS reason
FROM asked
LEFT JOIN totals_of_all AS x ON (x.unit, x.stratum, x.feature) = (asked.first, asked.stratum, asked.feature)
LEFT JOIN totals_of_all AS y ON (y.unit, y.stratum, y.feature) = (asked.second, asked.stratum, asked.feature)
WHERE x.n IS NULL
    OR y.n IS NULL
    OR least(x.n, y.n) < $least
    OR (asked.stratum, asked.feature) IN (FROM constant)
ORDER BY ALL
