-- episodes: every episode at its present state.
--
-- reads    out__episode
--          out__finding
-- params   $site VARCHAR  one site, or NULL for all
-- returns  site VARCHAR, episode_key VARCHAR, state VARCHAR,
--          finding_key VARCHAR  the finding that opened it
--          alarm_key VARCHAR    of the watch's alarm that opened or joined it, or NULL
--          followed_until DATE  last day of the latest period that moved it
--          stratum VARCHAR, target VARCHAR, opened_at TIMESTAMPTZ, closed_at TIMESTAMPTZ
--          oldest first

WITH

-- what each finding is about
scope AS (
    SELECT
        site,
        finding_key,
        any_value(stratum) AS stratum,
        any_value(target) AS target,
        any_value(period_end) AS period_end
    FROM out__finding
    GROUP BY site, finding_key
),

-- changes of state in their order; states only go forward
changes AS (
    SELECT *, list_position(['opened', 'acted', 'watching', 'closed'], state) AS step
    FROM out__episode
    JOIN scope USING (site, finding_key)
    WHERE $site IS NULL OR site = $site
)

SELECT
    site,
    episode_key,
    arg_max(state, step) AS state,
    arg_min(finding_key, step) AS finding_key,
    arg_min(alarm_key, step) FILTER (alarm_key IS NOT NULL) AS alarm_key,
    max(period_end) AS followed_until,
    any_value(stratum) AS stratum,
    any_value(target) AS target,
    min(opened_at) AS opened_at,
    max(closed_at) AS closed_at
FROM changes
GROUP BY site, episode_key
ORDER BY opened_at, site, episode_key
