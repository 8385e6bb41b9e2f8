-- reharmonized: harmonizations that were carried out for one site, stratum, target and period.
--
-- reads    out__decision
--          out__finding
-- params   $site         VARCHAR
--          $stratum      VARCHAR
--          $target       VARCHAR
--          $period_start DATE
-- returns  decision_key VARCHAR

SELECT DISTINCT out__decision.decision_key
FROM out__decision
JOIN out__finding USING (site, finding_key)
WHERE site = $site
    AND out__decision.action = 'reharmonize'
    AND out__decision.status = 'done'
    AND out__finding.stratum = $stratum
    AND out__finding.target = $target
    AND out__finding.period_start = $period_start
