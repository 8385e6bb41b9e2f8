-- jensen_shannon: Jensen-Shannon divergence of two histograms, on coarse bins.
--
-- reads    shares(comparison INTEGER, coarse INTEGER, m BIGINT, n BIGINT, p DOUBLE, q DOUBLE)
-- returns  comparison INTEGER
--          value DOUBLE, as counted
--          expected DOUBLE, its mean if both are of one population: (B - 1) c / (8 ln 2) with c = 1/m + 1/n
--          se DOUBLE, delta method plus the spread that is left without a shift
--          degrees DOUBLE, B - 1; value / scale is then chi-squared if nothing changed
--          scale DOUBLE, c / (8 ln 2)
-- range    [0, 1] bits; symmetric but for the choice of bins; half a count is added per coarse bin and unit
-- source   Lin 1991, doi:10.1109/18.61115, equal weights

WITH

-- how the divergence answers to each share
slopes AS (
    SELECT *, 0.5 * log2(2 * p / (p + q)) AS by_p, 0.5 * log2(2 * q / (p + q)) AS by_q
    FROM shares
),

sums AS (
    SELECT
        comparison,
        (1 / any_value(m) + 1 / any_value(n)) / (8 * ln(2)) AS c,
        count(*) - 1.0 AS degrees,
        sum(p * by_p + q * by_q ORDER BY coarse) AS value,
        (sum(p * by_p ^ 2 ORDER BY coarse) - sum(p * by_p ORDER BY coarse) ^ 2) / any_value(m)
        + (sum(q * by_q ^ 2 ORDER BY coarse) - sum(q * by_q ORDER BY coarse) ^ 2) / any_value(n) AS variance
    FROM slopes
    GROUP BY comparison
)

SELECT
    comparison,
    value,
    degrees * c AS expected,
    sqrt(greatest(variance, 0) + 2 * degrees * c ^ 2) AS se,
    degrees,
    c AS scale
FROM sums
ORDER BY comparison
