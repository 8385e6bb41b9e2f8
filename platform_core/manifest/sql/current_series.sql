-- current_series: the present revision of every accepted series of one site.
--
-- reads    core__series
-- params   $site VARCHAR
-- returns  all columns of core__series, one row per series_key, in key order

SELECT *
FROM core__series
WHERE site = $site AND volume_uri IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
ORDER BY series_key
