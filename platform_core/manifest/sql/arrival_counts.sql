-- arrival_counts: how arrivals ended, per site, outcome and reason.
--
-- reads    raw__arrival
-- params   $run VARCHAR  one run, or NULL for the outcome in force of every arrival
-- returns  site VARCHAR, outcome VARCHAR, reason VARCHAR, n BIGINT

WITH

-- the last decision on each arrival, within the run if one is asked for
latest AS (
    SELECT site, outcome, reason
    FROM raw__arrival
    WHERE $run IS NULL OR run = $run
    QUALIFY row_number() OVER (PARTITION BY site, arrival_key ORDER BY run DESC, arrived_at DESC) = 1
)

SELECT site, outcome, reason, count(*) AS n
FROM latest
GROUP BY site, outcome, reason
ORDER BY site, outcome, reason
