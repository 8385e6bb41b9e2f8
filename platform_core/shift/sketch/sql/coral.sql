-- coral: distance of two units' covariances of an embedding (CORAL), from their sums of moments.
--
-- reads    totals(unit VARCHAR, stratum VARCHAR, feature VARCHAR, kind VARCHAR, n BIGINT, sketch DOUBLE[])
--              sketch: sums of z_1 .. z_d, then of z_i z_j, i <= j, row by row
--          pair(first VARCHAR, second VARCHAR)
-- returns  first VARCHAR, second VARCHAR, stratum VARCHAR, feature VARCHAR
--          value DOUBLE, |C1 - C2|^2 / 4 d^2 (Frobenius)
--          expected DOUBLE, its mean for one normal population: c (tr(C)^2 + tr(C^2)) / 4 d^2
--          se DOUBLE, for normal z, an upper bound: tr(DCDC) is at most |D|^2 |C|^2
--          degrees DOUBLE, NULL
--          scale DOUBLE, 1
-- range    [0, inf), in reference variances squared; 0 on equal covariances; symmetric; blind to a shift of the mean
-- source   Sun & Saenko 2016, doi:10.1007/978-3-319-49409-8_35, equation 1

WITH

sized AS (
    SELECT *, ((sqrt(9 + 8 * len(sketch)) - 3) / 2)::BIGINT AS d
    FROM totals
    WHERE kind = 'moments' AND n > 1
),

-- one row per i, then per i and j; place counts the pairs i <= j in order
axes AS (
    SELECT unit, stratum, feature, n, d, sketch, unnest(range(1, d + 1)) AS i
    FROM sized
),

elements AS (
    SELECT
        unit,
        stratum,
        feature,
        n,
        d,
        i,
        j,
        (sketch[d + (i - 1) * d - (i - 1) * (i - 2) // 2 + j - i + 1] - sketch[i] * sketch[j] / n) / (n - 1) AS covariance
    FROM (SELECT *, unnest(range(i, d + 1)) AS j FROM axes)
),

-- every element of both; those off the diagonal count twice
paired AS (
    SELECT
        pair.first,
        pair.second,
        x.stratum,
        x.feature,
        x.n AS m,
        y.n AS n,
        x.d,
        x.i,
        x.j,
        CASE WHEN x.i = x.j THEN 1 ELSE 2 END AS times,
        x.covariance AS v,
        y.covariance AS w,
        (x.n * x.covariance + y.n * y.covariance) / (x.n + y.n) AS pooled
    FROM pair
    JOIN elements AS x ON x.unit = pair.first
    JOIN elements AS y
        ON y.unit = pair.second AND (y.stratum, y.feature, y.i, y.j) = (x.stratum, x.feature, x.i, x.j)
),

sums AS (
    SELECT
        first,
        second,
        stratum,
        feature,
        4.0 * any_value(d) ^ 2 AS norm,
        any_value(m) AS m,
        any_value(n) AS n,
        sum(times * (v - w) ^ 2 ORDER BY i, j) AS distance,
        sum(times * v ^ 2 ORDER BY i, j) AS first_squares,
        sum(times * w ^ 2 ORDER BY i, j) AS second_squares,
        sum(times * pooled ^ 2 ORDER BY i, j) AS squares,
        coalesce(sum(pooled ORDER BY i, j) FILTER (i = j), 0) AS trace
    FROM paired
    GROUP BY first, second, stratum, feature
)

SELECT
    first,
    second,
    stratum,
    feature,
    distance / norm AS value,
    (1 / m + 1 / n) * (trace ^ 2 + squares) / norm AS expected,
    sqrt(8 * distance * (first_squares / m + second_squares / n) + 8 * ((1 / m + 1 / n) * squares) ^ 2) / norm AS se,
    NULL::DOUBLE AS degrees,
    1.0::DOUBLE AS scale
FROM sums
ORDER BY first, second, stratum, feature
