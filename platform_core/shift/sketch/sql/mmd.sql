-- mmd: squared maximum mean discrepancy of two units from their sums of random Fourier features.
--
-- reads    totals(unit VARCHAR, stratum VARCHAR, feature VARCHAR, kind VARCHAR, n BIGINT, sketch DOUBLE[])
--          pair(first VARCHAR, second VARCHAR)
--          spectrum(stratum VARCHAR, feature VARCHAR, trace DOUBLE, trace_squares DOUBLE, top DOUBLE)
--              of the features' covariance in the reference: sum, sum of squares and largest of its eigenvalues
-- returns  first VARCHAR, second VARCHAR, stratum VARCHAR, feature VARCHAR
--          value DOUBLE, unbiased
--          expected DOUBLE, 0: it is unbiased
--          se DOUBLE, sqrt(2 c^2 sum(l^2) + 4 c l_1 max(value, 0)): the second part takes the largest eigenvalue
--              for the direction of the shift, so it errs to the wide side
--          degrees DOUBLE, scale DOUBLE: (value + offset) / scale is chi-squared with that many if nothing changed
--          shift DOUBLE, the offset, c sum(l)
-- range    about [-c, 2], 1; about 0 (also a little below) for one population
-- source   Gretton et al. 2012, JMLR 13, lemma 6; Rahimi & Recht 2007; two moments matched after Satterthwaite 1946

WITH

matched AS (
    SELECT
        pair.first,
        pair.second,
        x.stratum,
        x.feature,
        x.n::DOUBLE AS m,
        y.n::DOUBLE AS n,
        1 / x.n + 1 / y.n AS c,
        spectrum.*  EXCLUDE (stratum, feature),
        list_dot_product(x.sketch, x.sketch) AS xx,
        list_dot_product(y.sketch, y.sketch) AS yy,
        list_dot_product(x.sketch, y.sketch) AS xy
    FROM pair
    JOIN totals AS x ON x.unit = pair.first
    JOIN totals AS y ON y.unit = pair.second AND (y.stratum, y.feature) = (x.stratum, x.feature)
    JOIN spectrum ON (spectrum.stratum, spectrum.feature) = (x.stratum, x.feature)
    WHERE x.kind = 'fourier' AND x.n > 1 AND y.n > 1 AND spectrum.trace > 0
),

valued AS (
    SELECT *, (xx - m) / (m * (m - 1)) + (yy - n) / (n * (n - 1)) - 2 * xy / (m * n) AS value
    FROM matched
)

SELECT
    first,
    second,
    stratum,
    feature,
    value,
    0.0::DOUBLE AS expected,
    sqrt(2 * c ^ 2 * trace_squares + 4 * c * top * greatest(value, 0)) AS se,
    trace ^ 2 / trace_squares AS degrees,
    c * trace_squares / trace AS scale,
    c * trace AS shift
FROM valued
ORDER BY first, second, stratum, feature
