-- accepted_periods: the period that each stratum of a site was last adapted to, or accepted as it is after an alarm.
--
-- reads    out__decision
--          out__finding
--          out__alarm
-- params   $site   VARCHAR
--          $target VARCHAR  NULL before there is a target
-- returns  stratum VARCHAR
--          period_start DATE  of the finding behind the latest action that was carried out, or
--                             of the latest period that an alarm began and that turned out not to matter;
--                             NULL if the stratum was only recalibrated
--          scored_from DATE   the same, if a recalibration counts as well: it accepts scores, and not images

WITH

-- what each finding was about
scope AS (
    SELECT DISTINCT
        finding_key,
        stratum,
        period_start,
        kind = 'none' AND EXISTS (
            FROM out__alarm
            WHERE (out__alarm.site, out__alarm.stratum, out__alarm.period_start)
                = (out__finding.site, out__finding.stratum, out__finding.period_start)
        ) AS is_harmless
    FROM out__finding
    WHERE site = $site
)

SELECT
    stratum,
    arg_max(period_start, decided_at) FILTER (action <> 'recalibrate') AS period_start,
    arg_max(period_start, decided_at) AS scored_from
FROM out__decision
JOIN scope USING (finding_key)
WHERE site = $site
    AND target IS NOT DISTINCT FROM $target
    AND status = 'done'
    AND (action IN ('reharmonize', 'fine_tune', 'adapt', 'recalibrate') OR (action = 'none' AND is_harmless))
GROUP BY stratum
ORDER BY stratum
