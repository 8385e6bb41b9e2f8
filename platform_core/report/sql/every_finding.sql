-- every_finding: what each finding is about.
--
-- reads    out__finding
-- returns  site VARCHAR, finding_key VARCHAR, target VARCHAR, stratum VARCHAR,
--          period_start DATE, period_end DATE

SELECT DISTINCT site, finding_key, target, stratum, period_start, period_end
FROM out__finding
ORDER BY site, period_start, finding_key
