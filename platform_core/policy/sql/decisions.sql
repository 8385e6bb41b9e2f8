-- decisions: every decision at its latest status.
--
-- reads    out__decision
-- params   $site VARCHAR  one site, or NULL for all
-- returns  all columns of out__decision, and
--          first_decided_at TIMESTAMPTZ  when it was first written
--          oldest decision first

WITH

-- every status of every decision, with the time of its first
dated AS (
    SELECT
        *,
        min(decided_at) OVER (PARTITION BY decision_key) AS first_decided_at
    FROM out__decision
    WHERE $site IS NULL OR site = $site
),

-- the latest status: a decision goes on in this order, whatever the clocks said
latest AS (
    SELECT *
    FROM dated
    QUALIFY row_number() OVER (
        PARTITION BY decision_key
        ORDER BY
            list_position(
                ['waiting', 'approved', 'proposed', 'shadow', 'passed', 'rejected', 'refused', 'done'], status
            ) DESC,
            decided_at DESC
    ) = 1
)

SELECT *
FROM latest
ORDER BY first_decided_at, site, step, decision_key
