-- sketch_totals: the sum of sketches over days, one row per site, stratum and feature.
--
-- reads    added(site VARCHAR, stratum VARCHAR, feature VARCHAR, kind VARCHAR, n BIGINT, sum DOUBLE,
--                sum_squares DOUBLE, sketch DOUBLE[])  rows of out__sketch
-- returns  unit VARCHAR, the site
--          stratum VARCHAR, feature VARCHAR, kind VARCHAR
--          n BIGINT, patient-days, above 0
--          sum DOUBLE, sum_squares DOUBLE  NULL for other kinds than histograms
--          sketch DOUBLE[]
--          in order of unit, stratum and feature

WITH

moments AS (
    SELECT
        site,
        stratum,
        feature,
        any_value(kind) AS kind,
        sum(n)::BIGINT AS n,
        sum(sum ORDER BY n) AS sum,
        sum(sum_squares ORDER BY n) AS sum_squares
    FROM added
    GROUP BY site, stratum, feature
    HAVING sum(n) > 0
),

-- one row per place of every list
places AS (
    SELECT site, stratum, feature, unnest(sketch) AS part, generate_subscripts(sketch, 1) AS place
    FROM added
),

summed AS (
    SELECT site, stratum, feature, place, sum(part) AS part
    FROM places
    GROUP BY site, stratum, feature, place
),

sketches AS (
    SELECT site, stratum, feature, list(part ORDER BY place) AS sketch
    FROM summed
    GROUP BY site, stratum, feature
)

SELECT site AS unit, stratum, feature, kind, n, sum, sum_squares, sketch
FROM moments
JOIN sketches USING (site, stratum, feature)
ORDER BY unit, stratum, feature
