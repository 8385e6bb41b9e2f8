-- shares: the share of each coarse bin in two histograms.
--
-- reads    compared(comparison INTEGER, bin INTEGER, upper DOUBLE, width DOUBLE, coarse INTEGER,
--                   m BIGINT, n BIGINT, a DOUBLE, b DOUBLE)
-- returns  comparison INTEGER, coarse INTEGER
--          m BIGINT, n BIGINT, values counted in either histogram
--          p DOUBLE, q DOUBLE, shares
-- range    (0, 1); half a count is added per coarse bin and unit

WITH

-- counts per coarse bin, and half a count
counts AS (
    SELECT comparison, coarse, any_value(m) AS m, any_value(n) AS n, 0.5 + sum(a) AS a, 0.5 + sum(b) AS b
    FROM compared
    GROUP BY comparison, coarse
)

SELECT comparison, coarse, m, n, a / sum(a) OVER every_bin AS p, b / sum(b) OVER every_bin AS q
FROM counts
WINDOW every_bin AS (PARTITION BY comparison)
ORDER BY comparison, coarse
