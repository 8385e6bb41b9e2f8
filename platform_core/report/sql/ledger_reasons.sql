-- ledger_reasons: what became of everything that came from one site, and why.
--
-- reads    raw__arrival
-- params   $site VARCHAR
-- returns  outcome VARCHAR, reason VARCHAR  NULL when accepted
--          n BIGINT arrivals, n_bytes BIGINT

WITH

-- each arrival as the latest run decided; a decision made anew keeps its arrived_at
latest AS (
    SELECT outcome, reason, n_bytes
    FROM raw__arrival
    WHERE site = $site
    QUALIFY row_number() OVER (PARTITION BY arrival_key ORDER BY run DESC, arrived_at DESC) = 1
)

SELECT outcome, reason, count(*) AS n, sum(n_bytes)::BIGINT AS n_bytes
FROM latest
GROUP BY outcome, reason
ORDER BY list_position(['accepted', 'duplicate', 'quarantined', 'waiting', 'ignored'], outcome), n DESC, reason
