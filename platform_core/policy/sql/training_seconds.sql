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

-- when each fine-tuning began, by the finding that it is about; a shadow may end it a month later
begun AS (
    SELECT
        site,
        finding_key,
        coalesce(min(decided_at) FILTER (status = 'proposed'), min(decided_at)) AS begun_at
    FROM out__decision
    WHERE action = 'fine_tune'
    GROUP BY site, finding_key
),

-- each candidate of their races once
raced AS (
    SELECT any_value(seconds) AS seconds
    FROM out__race
    JOIN begun USING (site, finding_key)
    WHERE begun_at > $since AND begun_at <= $until
    GROUP BY race_key, strategy
)

SELECT coalesce(sum(seconds), 0.0) AS seconds
FROM (
    SELECT seconds FROM made
    UNION ALL
    SELECT seconds FROM raced
)
