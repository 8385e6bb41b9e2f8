-- stage_counts: how series fared at every stage.
--
-- reads    core__stage
-- params   $site VARCHAR  one site, or NULL for all
-- returns  site VARCHAR, stage VARCHAR, recipe VARCHAR, model VARCHAR, outcome VARCHAR, reason VARCHAR, n BIGINT

SELECT site, stage, recipe, model, outcome, reason, count(DISTINCT series_key) AS n
FROM core__stage
WHERE $site IS NULL OR site = $site
GROUP BY site, stage, recipe, model, outcome, reason
ORDER BY site, stage, recipe, model, outcome, reason
