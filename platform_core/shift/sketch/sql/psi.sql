-- psi: population stability index of two histograms, on coarse bins.
--
-- reads    shares(comparison INTEGER, coarse INTEGER, m BIGINT, n BIGINT, p DOUBLE, q DOUBLE)
-- returns  comparison INTEGER
--          value DOUBLE, as counted
--          expected DOUBLE, its mean if both are of one population: (B - 1) c with c = 1/m + 1/n
--          se DOUBLE, delta method plus the spread that is left without a shift, c sqrt(2 (B - 1))
--          degrees DOUBLE, B - 1; value / scale is then chi-squared if nothing changed
--          scale DOUBLE, c
-- range    [0, inf) nats; symmetric but for the choice of bins; half a count is added per coarse bin and unit
-- source   Yurdakul & Naranjo 2020, doi:10.21314/JRMV.2020.227

WITH

-- how the index answers to each share
slopes AS (
    SELECT *, 1 - q / p - ln(q / p) AS by_p, 1 - p / q + ln(q / p) AS by_q
    FROM shares
),

sums AS (
    SELECT
        comparison,
        1 / any_value(m) + 1 / any_value(n) AS c,
        count(*) - 1.0 AS degrees,
        sum((q - p) * ln(q / p) ORDER BY coarse) AS value,
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
