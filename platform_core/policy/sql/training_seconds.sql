-- training_seconds: what training took in a stretch of time, races and the models made.
--
-- reads    out__race
--          out__model
--          out__decision
-- params   $since TIMESTAMPTZ  exclusive
--          $until TIMESTAMPTZ  inclusive
-- returns  seconds DOUBLE, one row

WITH

-- each model once, however many aliases it was given
made AS (
    SELECT any_value(CAST(json_extract(training, '$.seconds') AS DOUBLE)) AS seconds
    FROM out__model
    WHERE training IS NOT NULL AND created_at > $since AND created_at <= $until
    GROUP BY model, version
),

-- fine-tunings of the time, by the finding that they are about
decided AS (
    SELECT site, finding_key
    FROM out__decision
    WHERE action = 'fine_tune'
    GROUP BY site, finding_key
    HAVING max(decided_at) > $since AND max(decided_at) <= $until
),

-- each candidate of their races once
raced AS (
    SELECT any_value(seconds) AS seconds
    FROM out__race
    SEMI JOIN decided USING (site, finding_key)
    GROUP BY race_key, strategy
)

SELECT coalesce(sum(seconds), 0.0) AS seconds
FROM (
    SELECT seconds FROM made
    UNION ALL
    SELECT seconds FROM raced
)
