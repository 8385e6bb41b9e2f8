-- listed_arrivals: how many files a run listed as new and gave an outcome.
--
-- reads    raw__arrival
-- params   $site VARCHAR
--          $run  VARCHAR
-- returns  n BIGINT

WITH

-- arrivals as first decided: a decision made anew keeps the moment of the arrival
first_decisions AS (
    SELECT arrival_key, run
    FROM raw__arrival
    WHERE site = $site
    QUALIFY row_number() OVER (PARTITION BY arrival_key, arrived_at ORDER BY run) = 1
)

SELECT count(*) AS n
FROM first_decisions
WHERE run = $run
