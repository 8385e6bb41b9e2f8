-- pending_series: series that passed one stage and have no answer yet at the next.
--
-- reads    core__series
--          core__stage
-- params   $site         VARCHAR
--          $stage        VARCHAR  the stage that owes an answer
--          $recipe       VARCHAR  its recipe
--          $model        VARCHAR  its model, '' for stages without one
--          $after_stage  VARCHAR  the stage before; 'ingest' is passed by every accepted series
--          $after_recipe VARCHAR  the recipe of the stage before
--          $passing      VARCHAR[]  reasons of a refusal that is no lasting answer
-- returns  series_key VARCHAR

WITH

-- the present revision of every accepted series
present AS (
    SELECT series_key, max(revision) AS revision
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
    GROUP BY series_key
),

-- series that the stage before has let through
passed AS (
    SELECT series_key, revision
    FROM core__stage
    WHERE site = $site AND stage = $after_stage AND recipe = $after_recipe AND outcome = 'done'
),

-- series that the stage has answered
answered AS (
    SELECT series_key, revision
    FROM core__stage
    WHERE
        site = $site
        AND stage = $stage
        AND recipe = $recipe
        AND model = $model
        AND NOT coalesce(list_contains($passing, reason), false)
)

SELECT series_key
FROM present
WHERE ($after_stage = 'ingest' OR EXISTS (FROM passed WHERE (passed.series_key, passed.revision) = (present.series_key, present.revision)))
    AND NOT EXISTS (FROM answered WHERE (answered.series_key, answered.revision) = (present.series_key, present.revision))
ORDER BY series_key
