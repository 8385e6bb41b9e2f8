-- stage_counts: how series fared at every stage, each counted once, by its last answer there.
--
-- reads    core__stage
-- params   $site VARCHAR  one site, or NULL for all
-- returns  site VARCHAR, stage VARCHAR, recipe VARCHAR, model VARCHAR, outcome VARCHAR, reason VARCHAR, n BIGINT

WITH

-- the answer in force of every series at every stage
answers AS (
    SELECT site, stage, recipe, model, outcome, reason
    FROM core__stage
    WHERE $site IS NULL OR site = $site
    QUALIFY row_number() OVER (
        PARTITION BY site, series_key, stage, recipe, model ORDER BY revision DESC, run DESC
    ) = 1
)

SELECT site, stage, recipe, model, outcome, reason, count(*) AS n
FROM answers
GROUP BY site, stage, recipe, model, outcome, reason
ORDER BY site, stage, recipe, model, outcome, reason
