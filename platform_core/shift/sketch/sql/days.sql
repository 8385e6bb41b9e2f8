-- days: the days that some series lie on, or lay on in an earlier revision.
--
-- reads    core__series
--          chosen(series_key VARCHAR)
-- params   $site VARCHAR
-- returns  day DATE, each once, in order

SELECT DISTINCT observed_on AS day
FROM core__series
JOIN chosen USING (series_key)
WHERE site = $site AND observed_on IS NOT NULL
ORDER BY day
