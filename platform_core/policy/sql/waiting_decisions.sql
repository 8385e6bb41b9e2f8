-- waiting_decisions: the questions that a person may answer now, each by its latest decision.
--
-- reads    decided  every decision at its latest status, as decisions.sql returns it
--          out__finding
-- returns  decision_key VARCHAR, site VARCHAR, target VARCHAR, stratum VARCHAR, action VARCHAR, because VARCHAR,
--          since TIMESTAMPTZ  when it was first asked for the period
--          oldest question first

WITH

-- what each finding is about
scope AS (
    SELECT site, finding_key, any_value(stratum) AS stratum, any_value(period_start) AS period_start
    FROM out__finding
    GROUP BY site, finding_key
),

-- decisions that ever waited for a person, with their question
asked AS (
    SELECT
        decided.*,
        scope.stratum,
        scope.period_start,
        decided.action || '/' || if(decided.action = 'hold', coalesce(decided.rule, ''), '') AS question
    FROM decided
    JOIN scope USING (site, finding_key)
),

-- the latest period of each site, stratum and target: nobody is asked about what has passed
latest AS (
    SELECT site, stratum, target, max(period_start) AS period_start
    FROM asked
    GROUP BY site, stratum, target
),

-- every question once; one that has been answered for the period, or was carried out, is none
open AS (
    SELECT
        site,
        target,
        stratum,
        arg_max(decision_key, first_decided_at) AS decision_key,
        arg_max(action, first_decided_at) AS action,
        arg_max(because, first_decided_at) AS because,
        min(first_decided_at) AS since
    FROM asked
    SEMI JOIN latest USING (site, stratum, target, period_start)
    GROUP BY site, target, stratum, period_start, question
    HAVING bool_and(status = 'waiting')
)

SELECT decision_key, site, target, stratum, action, because, since
FROM open
ORDER BY since, site, target, stratum, action
