-- matched: which histograms of pairs of units can be compared, and a number for each.
--
-- reads    totals(unit VARCHAR, stratum VARCHAR, feature VARCHAR, kind VARCHAR, n BIGINT)
--          pair(first VARCHAR, second VARCHAR)
-- returns  comparison INTEGER, 0, 1, ... in order of the names
--          first VARCHAR, second VARCHAR, stratum VARCHAR, feature VARCHAR
--          pairs with no patient-day on either side are left out

SELECT
    (row_number() OVER (ORDER BY pair.first, pair.second, x.stratum, x.feature) - 1)::INTEGER AS comparison,
    pair.first,
    pair.second,
    x.stratum,
    x.feature
FROM pair
JOIN totals AS x ON x.unit = pair.first
JOIN totals AS y ON y.unit = pair.second AND (y.stratum, y.feature) = (x.stratum, x.feature)
WHERE x.kind = 'histogram' AND x.n > 0 AND y.n > 0
ORDER BY comparison
