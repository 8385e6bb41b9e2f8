-- races: every candidate of every race of one site, with the period that the race was about.
--
-- reads    out__race
--          out__finding
-- params   $site VARCHAR
-- returns  all columns of out__race, and
--          stratum VARCHAR, period_start DATE, period_end DATE  null where the finding is not there
--          latest run first, candidates in the order in which they were to be run

WITH

-- what each finding is about
periods AS (
    SELECT DISTINCT ON (finding_key) finding_key, stratum, period_start, period_end
    FROM out__finding
    WHERE site = $site
    ORDER BY finding_key, run DESC
)

SELECT race.*, periods.stratum, periods.period_start, periods.period_end
FROM out__race AS race
LEFT JOIN periods USING (finding_key)
WHERE race.site = $site
ORDER BY race.run DESC, race.race_key, race.step
