-- held_files: every file that waits for a person, with the reason.
--
-- reads    raw__arrival
-- params   $site   VARCHAR  one site, or NULL for all
--          $reason VARCHAR  one reason code, or NULL for all
--          $key    VARCHAR  one series_key or arrival_key, or NULL for all
-- returns  site VARCHAR
--          series_key VARCHAR   null for a file that never became part of a series
--          arrival_key VARCHAR
--          outcome VARCHAR      quarantined or waiting
--          reason VARCHAR
--          detail VARCHAR
--          arrived_at TIMESTAMP WITH TIME ZONE

WITH

-- the outcome in force of every file
latest AS (
    SELECT *
    FROM raw__arrival
    QUALIFY row_number() OVER (PARTITION BY site, arrival_key ORDER BY run DESC, arrived_at DESC) = 1
)

SELECT site, series_key, arrival_key, outcome, reason, detail, arrived_at
FROM latest
WHERE outcome IN ('quarantined', 'waiting')
    AND ($site IS NULL OR site = $site)
    AND ($reason IS NULL OR reason = $reason)
    AND ($key IS NULL OR series_key = $key OR arrival_key = $key)
ORDER BY site, reason, series_key, arrival_key
