-- accepted_periods: the period that each stratum of a site was last adapted to, or accepted as it is after an alarm.
--
-- reads    out__decision
--          out__finding
--          alarm(alarm_key VARCHAR, stratum VARCHAR, period_start DATE, is_score BOOLEAN, raised_at TIMESTAMPTZ)
--              those that are about the target
-- params   $site   VARCHAR
--          $target VARCHAR  NULL before there is a target
-- returns  stratum VARCHAR
--          period_start DATE  of the finding behind the latest action that was carried out and not taken back, or
--                             of the first period since an unanswered alarm in which nothing mattered;
--                             NULL if the stratum was only recalibrated or calibrated
--          scored_from DATE   the same, if a new calibration counts as well: it accepts scores, and not images

WITH

-- what each finding was about
scope AS (
    SELECT DISTINCT finding_key, stratum, period_start, kind = 'none' AS is_quiet
    FROM out__finding
    WHERE site = $site
),

-- when what the site ran was last put back: what was done before holds no longer
taken_back AS (
    SELECT max(decided_at) AS taken_back_at
    FROM out__decision
    WHERE status = 'done'
        AND target IS NOT DISTINCT FROM $target
        AND (action = 'rollback' OR (action = 'restore' AND site = $site))
),

-- actions that were carried out and still hold, and quiet periods that called for none
step AS (
    SELECT stratum, period_start, decided_at, action
    FROM out__decision
    JOIN scope USING (finding_key)
    CROSS JOIN taken_back
    WHERE site = $site
        AND (taken_back_at IS NULL OR decided_at >= taken_back_at)
        AND target IS NOT DISTINCT FROM $target
        AND status = 'done'
        AND (action IN ('reharmonize', 'fine_tune', 'adapt', 'recalibrate', 'calibrate') OR (action = 'none' AND is_quiet))
),

-- the moment of the first step that answered each alarm
answered AS (
    SELECT alarm.alarm_key, alarm.stratum, alarm.period_start, min(step.decided_at) AS answered_at
    FROM alarm
    JOIN step
        ON step.stratum = alarm.stratum
        AND step.period_start >= alarm.period_start
        AND (alarm.raised_at IS NULL OR step.decided_at >= alarm.raised_at)
        AND (alarm.is_score OR step.action NOT IN ('recalibrate', 'calibrate'))
    GROUP BY ALL
),

-- steps that accept their period: a quiet one only if it answered an alarm
accepting AS (
    SELECT *
    FROM step
    WHERE action <> 'none'
        OR EXISTS (
            FROM answered
            WHERE answered.stratum = step.stratum
                AND answered.period_start <= step.period_start
                AND answered.answered_at = step.decided_at
        )
)

SELECT
    stratum,
    arg_max(period_start, decided_at) FILTER (action NOT IN ('recalibrate', 'calibrate')) AS period_start,
    arg_max(period_start, decided_at) AS scored_from
FROM accepting
GROUP BY stratum
ORDER BY stratum
