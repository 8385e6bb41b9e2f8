-- ks: Kolmogorov-Smirnov distance of two histograms.
--
-- reads    compared(comparison INTEGER, bin INTEGER, upper DOUBLE, width DOUBLE, coarse INTEGER,
--                   m BIGINT, n BIGINT, a DOUBLE, b DOUBLE)
-- returns  comparison INTEGER
--          value DOUBLE, the largest gap at a bin's end; the rows' own distance is at least this, and at most
--              this plus the largest share of a bin
--          expected DOUBLE, its mean if both are of one population: sqrt(pi c / 2) ln 2 with c = 1/m + 1/n
--          se DOUBLE, of the gap at its place, two binomials; at least Kolmogorov's own, 0.2603 sqrt(c)
--          degrees DOUBLE, mn / (m + n)
--          scale DOUBLE, 1
-- range    [0, 1]; 0 on equal shares, 1 where no bin is shared; symmetric
-- source   Smirnov 1948, doi:10.1214/aoms/1177730256; the mean is that of Kolmogorov's distribution

WITH

-- share of each unit at or below the bin's end
ecdf AS (
    SELECT
        comparison,
        m,
        n,
        bin,
        sum(a) OVER up_to / m AS f,
        sum(b) OVER up_to / n AS g
    FROM compared
    WINDOW up_to AS (PARTITION BY comparison ORDER BY bin ROWS UNBOUNDED PRECEDING)
),

-- the first place where they are furthest apart
furthest AS (
    SELECT *
    FROM ecdf
    QUALIFY row_number() OVER (PARTITION BY comparison ORDER BY abs(f - g) DESC, bin) = 1
)

SELECT
    comparison,
    abs(f - g) AS value,
    sqrt(pi() / 2 * (1 / m + 1 / n)) * ln(2) AS expected,
    sqrt(greatest(f * (1 - f) / m + g * (1 - g) / n, 0.2603 ^ 2 * (1 / m + 1 / n))) AS se,
    m * n / (m + n) AS degrees,
    1.0::DOUBLE AS scale
FROM furthest
ORDER BY comparison
