-- wasserstein: earth mover's distance of two histograms, in the feature's unit.
--
-- reads    compared(comparison INTEGER, bin INTEGER, upper DOUBLE, width DOUBLE, coarse INTEGER,
--                   m BIGINT, n BIGINT, a DOUBLE, b DOUBLE)
-- returns  comparison INTEGER
--          value DOUBLE, the area between the distribution functions, straight within a bin; values beyond the
--              outermost edges count as lying on them; differs from the rows' own (so cut) by at most the sum
--              over bins of width times the larger of the two shares
--          expected DOUBLE, its mean if both are of one population: sqrt(2 c / pi) times the integral of
--              sqrt(H (1 - H)), with c = 1/m + 1/n and H the pooled distribution function
--          se DOUBLE, delta method at the signs of the gaps; at least sqrt(pi / 2 - 1) of `expected`, the most that
--              the area can vary without a shift
--          degrees DOUBLE, NULL: no reference distribution is known
--          scale DOUBLE, 1
--          none where the edges coincide: a constant reference leaves nothing to measure with
-- range    [0, inf) in the feature's unit; 0 on equal shares; symmetric
-- source   Vallender 1974, doi:10.1137/1118101: the area between the two distribution functions

WITH

-- share of each unit at or below the bin's end, and below its beginning
ecdf AS (
    SELECT
        comparison,
        bin,
        upper,
        width,
        m,
        n,
        a / m AS p,
        b / n AS q,
        sum(a) OVER up_to / m AS f,
        sum(b) OVER up_to / n AS g
    FROM compared
    WINDOW up_to AS (PARTITION BY comparison ORDER BY bin ROWS UNBOUNDED PRECEDING)
),

-- the gap at the beginning and at the end of every bin, and how far the line between the edges reaches
gaps AS (
    SELECT
        *,
        (f - p) - (g - q) AS before,
        f - g AS after,
        (m * (f - p) + n * (g - q)) / (m + n) AS pooled_before,
        (m * f + n * g) / (m + n) AS pooled_after,
        coalesce(lead(width) OVER (PARTITION BY comparison ORDER BY bin), 0) AS next_width
    FROM ecdf
),

-- a bin's area; two triangles where the gap changes its sign
areas AS (
    SELECT
        *,
        CASE
            WHEN before * after < 0 THEN width * (before ^ 2 + after ^ 2) / (2 * (abs(before) + abs(after)))
            ELSE width * abs(before + after) / 2
        END AS area,
        width * (sqrt(greatest(pooled_before * (1 - pooled_before), 0)) + sqrt(greatest(pooled_after * (1 - pooled_after), 0))) / 2
            AS spread,
        sign(after) * (width + next_width) / 2 AS pull
    FROM gaps
),

-- how the area answers to a share that is put into the bin: it lifts every gap from there on
slopes AS (
    SELECT *, sum(pull) OVER from_here AS slope
    FROM areas
    WINDOW from_here AS (
        PARTITION BY comparison ORDER BY bin ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    )
),

sums AS (
    SELECT
        comparison,
        sum(area ORDER BY bin) AS value,
        sqrt(2 / pi() * (1 / any_value(m) + 1 / any_value(n))) * sum(spread ORDER BY bin) AS expected,
        (sum(p * slope ^ 2 ORDER BY bin) - sum(p * slope ORDER BY bin) ^ 2) / any_value(m)
        + (sum(q * slope ^ 2 ORDER BY bin) - sum(q * slope ORDER BY bin) ^ 2) / any_value(n) AS variance
    FROM slopes
    GROUP BY comparison
    HAVING sum(width) > 1e-9 * max(abs(upper))
)

SELECT
    comparison,
    value,
    expected,
    sqrt(greatest(variance, (pi() / 2 - 1) * expected ^ 2)) AS se,
    NULL::DOUBLE AS degrees,
    1.0::DOUBLE AS scale
FROM sums
ORDER BY comparison
