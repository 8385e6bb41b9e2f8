-- ledger: what became of everything that came.
--
-- reads    raw__arrival
-- returns  site VARCHAR, outcome VARCHAR, n BIGINT  arrivals

WITH

-- each arrival as the latest run saw it; a waiting file may be accepted later
latest AS (
    SELECT site, arrival_key, arg_max(outcome, arrived_at) AS outcome
    FROM raw__arrival
    GROUP BY site, arrival_key
)

SELECT site, outcome, count(*) AS n
FROM latest
GROUP BY site, outcome
ORDER BY site, outcome
