-- findings: the latest finding of every site, target, stratum and period.
--
-- reads    out__finding
-- returns  all columns of out__finding, oldest period first

SELECT *
FROM out__finding
QUALIFY row_number() OVER (PARTITION BY site, target, stratum, period_start ORDER BY run DESC, kind = 'none') = 1
ORDER BY site, target, stratum, period_start
