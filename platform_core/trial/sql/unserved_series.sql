-- unserved_series: series that passed quality and that no recipe of the target has seen yet.
--
-- reads    core__series
--          core__stage
--          core__recipe
-- params   $site     VARCHAR
--          $target   VARCHAR
--          $modality VARCHAR  of the target; other modalities are not its business
-- returns  series_key VARCHAR

WITH

-- the present revision of every series of the target's modality
present AS (
    SELECT series_key, max(revision) AS revision
    FROM core__series
    WHERE site = $site AND modality = $modality AND volume_uri IS NOT NULL
    GROUP BY series_key
),

-- what each series was asked at every stage
answered AS (
    SELECT series_key, revision, stage, recipe, outcome
    FROM core__stage
    WHERE site = $site
),

-- recipes that were fitted for the target at this site
recipes AS (
    SELECT recipe
    FROM core__recipe
    WHERE site = $site AND target = $target
)

SELECT series_key
FROM present
WHERE EXISTS (
        FROM answered
        WHERE (answered.series_key, answered.revision) = (present.series_key, present.revision)
            AND stage = 'quality' AND outcome = 'done'
    )
    AND NOT EXISTS (
        FROM answered
        JOIN recipes USING (recipe)
        WHERE (answered.series_key, answered.revision) = (present.series_key, present.revision)
            AND stage = 'harmonize'
    )
ORDER BY series_key
