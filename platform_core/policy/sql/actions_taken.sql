-- actions_taken: what was carried out, or tried and refused, for one site, stratum, target and period.
--
-- reads    out__decision
--          out__finding
-- params   $site         VARCHAR
--          $stratum      VARCHAR
--          $target       VARCHAR
--          $period_start DATE
-- returns  action VARCHAR, oldest first

SELECT out__decision.action
FROM out__decision
SEMI JOIN (
    FROM out__finding
    WHERE site = $site AND stratum = $stratum AND target = $target AND period_start = $period_start
) AS about USING (site, finding_key)
WHERE out__decision.status IN ('done', 'refused')
GROUP BY out__decision.action
ORDER BY min(out__decision.decided_at), min(out__decision.step)
