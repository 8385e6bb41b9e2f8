-- sketch_compared: the histograms of pairs of units, bin beside bin.
--
-- reads    totals(unit VARCHAR, stratum VARCHAR, feature VARCHAR, kind VARCHAR, n BIGINT, sketch DOUBLE[])
--          pair(first VARCHAR, second VARCHAR)
--          bins(stratum VARCHAR, feature VARCHAR, bin INTEGER, upper DOUBLE, width DOUBLE, coarse INTEGER)
-- returns  first VARCHAR, second VARCHAR, stratum VARCHAR, feature VARCHAR
--          bin INTEGER, upper DOUBLE, width DOUBLE, coarse INTEGER
--          m BIGINT, n BIGINT, patient-days of first and of second
--          a DOUBLE, b DOUBLE, those of them in the bin
--          pairs with no patient-day on either side are left out

SELECT
    pair.first,
    pair.second,
    bins.stratum,
    bins.feature,
    bins.bin,
    bins.upper,
    bins.width,
    bins.coarse,
    x.n AS m,
    y.n AS n,
    x.sketch[bins.bin] AS a,
    y.sketch[bins.bin] AS b
FROM pair
JOIN totals AS x ON x.unit = pair.first
JOIN totals AS y ON y.unit = pair.second AND (y.stratum, y.feature) = (x.stratum, x.feature)
JOIN bins ON (bins.stratum, bins.feature) = (x.stratum, x.feature)
WHERE x.kind = 'histogram' AND x.n > 0 AND y.n > 0
