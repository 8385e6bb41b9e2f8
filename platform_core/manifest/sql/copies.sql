-- copies: series whose voxels another series of the site showed first.
--
-- reads    core__series
-- params   $site VARCHAR
-- returns  series_key VARCHAR  the copy
--          original VARCHAR    the series that came first; of those that came in one run, the least key

WITH

-- every revision of every accepted series, with the run in which the series showed its voxels first
shown AS (
    SELECT series_key, revision, voxels_sha256, min(run) OVER (PARTITION BY series_key, voxels_sha256) AS run
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
),

-- the present one of them
present AS (
    SELECT series_key, voxels_sha256, run
    FROM shown
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
),

-- each series with the first that showed its voxels
firsts AS (
    SELECT series_key, first_value(series_key) OVER (PARTITION BY voxels_sha256 ORDER BY run, series_key) AS original
    FROM present
    WHERE voxels_sha256 IS NOT NULL
)

SELECT series_key, original
FROM firsts
WHERE series_key <> original
ORDER BY series_key
