-- held_back: what waits for a person, per site, stage and reason.
--
-- reads    raw__arrival
--          core__stage
-- params   none
-- returns  site VARCHAR
--          stage VARCHAR   'arrival' for files that never became a series
--          reason VARCHAR
--          n BIGINT        series, or files where stage is 'arrival'
--          example VARCHAR a series_key, or an arrival_key where stage is 'arrival'

WITH

-- the outcome in force of every file
latest AS (
    SELECT site, arrival_key, series_key, outcome, reason
    FROM raw__arrival
    QUALIFY row_number() OVER (PARTITION BY site, arrival_key ORDER BY run DESC, arrived_at DESC) = 1
),

-- the answer in force of every series at every stage
answers AS (
    SELECT site, series_key, stage, outcome, reason
    FROM core__stage
    QUALIFY row_number() OVER (
        PARTITION BY site, series_key, stage, recipe, model ORDER BY revision DESC, run DESC
    ) = 1
),

-- files that no series accounts for
files AS (
    SELECT site, 'arrival' AS stage, reason, arrival_key AS example
    FROM latest
    WHERE outcome IN ('quarantined', 'waiting')
        AND NOT EXISTS (FROM answers WHERE answers.series_key = latest.series_key AND answers.outcome = 'refused')
),

-- series that a stage refused
series AS (
    SELECT site, stage, reason, series_key AS example
    FROM answers
    WHERE outcome = 'refused'
)

SELECT site, stage, reason, count(DISTINCT example) AS n, min(example) AS example
FROM (FROM files UNION ALL FROM series)
GROUP BY site, stage, reason
ORDER BY site, stage, reason
