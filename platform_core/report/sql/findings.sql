-- findings: the finding that counts for every site, target, stratum and period.
--
-- reads    out__finding
--          out__decision
-- returns  all columns of out__finding, oldest period first

WITH

-- findings that something was done about; measured again afterwards, their period is its own accepted state
acted AS (
    SELECT DISTINCT site, finding_key
    FROM out__decision
    WHERE action IN ('reharmonize', 'recalibrate', 'calibrate', 'adapt', 'fine_tune')
)

SELECT *
FROM out__finding
QUALIFY row_number() OVER (
    PARTITION BY site, target, stratum, period_start
    ORDER BY (site, finding_key) IN (SELECT (site, finding_key) FROM acted) DESC, run DESC
) = 1
ORDER BY site, target, stratum, period_start
