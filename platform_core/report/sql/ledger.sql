-- ledger: what became of everything that came.
--
-- reads    raw__arrival
-- returns  site VARCHAR, outcome VARCHAR, n BIGINT  arrivals

WITH

-- each arrival as the latest run decided; a decision made anew keeps its arrived_at
latest AS (
    SELECT site, outcome
    FROM raw__arrival
    QUALIFY row_number() OVER (PARTITION BY site, arrival_key ORDER BY run DESC, arrived_at DESC) = 1
)

SELECT site, outcome, count(*) AS n
FROM latest
GROUP BY site, outcome
ORDER BY site, outcome
