-- new_guidelines: guidelines of a period's labels that no earlier label of the site and none of the source names.
--
-- reads    core__label
--          core__series
-- params   $target       VARCHAR
--          $source       VARCHAR  the target's source site
--          $site         VARCHAR
--          $period_start DATE
--          $period_end   DATE  last day, inclusive
-- returns  guideline VARCHAR; no rows where nothing is known of a guideline before

WITH

-- readings that say what they were read by
named AS (
    SELECT label.site, label.guideline, series.observed_on
    FROM core__label AS label
    JOIN core__series AS series USING (site, series_key)
    WHERE label.target = $target AND label.guideline IS NOT NULL AND label.site IN ($site, $source)
),

-- what readings were made by before
before AS (
    SELECT DISTINCT guideline
    FROM named
    WHERE (site = $source AND $source <> $site) OR (site = $site AND observed_on < $period_start)
)

SELECT DISTINCT guideline
FROM named
WHERE site = $site
    AND observed_on BETWEEN $period_start AND $period_end
    AND guideline NOT IN (SELECT guideline FROM before)
    AND EXISTS (FROM before)
ORDER BY guideline
