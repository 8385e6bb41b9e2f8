-- compared: the histograms of matched pairs of units, bin beside bin.
--
-- reads    matched(comparison INTEGER, first VARCHAR, second VARCHAR, stratum VARCHAR, feature VARCHAR)
--          totals(unit VARCHAR, stratum VARCHAR, feature VARCHAR, n BIGINT, sketch DOUBLE[])
--          bins(stratum VARCHAR, feature VARCHAR, bin INTEGER, upper DOUBLE, width DOUBLE, coarse INTEGER)
-- returns  comparison INTEGER
--          bin INTEGER, upper DOUBLE, width DOUBLE, coarse INTEGER
--          m BIGINT, n BIGINT, patient-days of first and of second
--          a DOUBLE, b DOUBLE, those of them in the bin

WITH

-- one row per bin
places AS (
    SELECT
        matched.*,
        x.n AS m,
        y.n AS n,
        unnest(x.sketch) AS a,
        unnest(y.sketch) AS b,
        generate_subscripts(x.sketch, 1) AS bin
    FROM matched
    JOIN totals AS x ON (x.unit, x.stratum, x.feature) = (matched.first, matched.stratum, matched.feature)
    JOIN totals AS y ON (y.unit, y.stratum, y.feature) = (matched.second, matched.stratum, matched.feature)
)

SELECT comparison, bin, upper, width, coarse, m, n, a, b
FROM places
JOIN bins USING (stratum, feature, bin)
