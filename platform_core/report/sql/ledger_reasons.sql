-- ledger_reasons: what became of everything that came from one site, and why.
--
-- reads    raw__arrival
-- params   $site VARCHAR
-- returns  outcome VARCHAR, reason VARCHAR  NULL when accepted
--          n BIGINT arrivals, n_bytes BIGINT

WITH

-- each arrival as the latest run saw it; a waiting file may be accepted later
latest AS (
    SELECT arrival_key, arg_max(outcome, arrived_at) AS outcome, arg_max(reason, arrived_at) AS reason,
        max(n_bytes) AS n_bytes
    FROM raw__arrival
    WHERE site = $site
    GROUP BY arrival_key
)

SELECT outcome, reason, count(*) AS n, sum(n_bytes)::BIGINT AS n_bytes
FROM latest
GROUP BY outcome, reason
ORDER BY list_position(['accepted', 'duplicate', 'quarantined', 'waiting', 'ignored'], outcome), n DESC, reason
