-- accepted_periods: the period that each stratum of a site was last adapted to.
--
-- reads    out__decision
--          out__finding
-- params   $site   VARCHAR
--          $target VARCHAR  NULL before there is a target
-- returns  stratum VARCHAR
--          period_start DATE  of the finding behind the latest action that was carried out

WITH

-- what each finding was about
scope AS (
    SELECT DISTINCT finding_key, stratum, period_start
    FROM out__finding
    WHERE site = $site
)

SELECT stratum, arg_max(period_start, decided_at) AS period_start
FROM out__decision
JOIN scope USING (finding_key)
WHERE site = $site
    AND target IS NOT DISTINCT FROM $target
    AND status = 'done'
    AND action IN ('reharmonize', 'fine_tune', 'adapt')
GROUP BY stratum
ORDER BY stratum
