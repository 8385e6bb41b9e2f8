-- batch: the frame that quality rules look at.
--
-- reads    core__series
--          core__feature
--          wanted
-- params   $site VARCHAR
-- returns  all columns of core__series, then the native features that are not such a column;
--          one row per series of `wanted(series_key)` at its present revision, in key order

WITH

-- wanted series at their present revision
scans AS (
    SELECT *
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL AND series_key IN (SELECT series_key FROM wanted)
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
),

-- what was measured on the volume as it came; spacing is a feature too, and the header's own is the one to check
measured AS (
    SELECT series_key, revision, COLUMNS(lambda c: c NOT IN (
        'site', 'series_key', 'revision', 'recipe', 'stratum', 'observed_on', 'run',
        'spacing_x_mm', 'spacing_y_mm', 'spacing_z_mm'
    ))
    FROM core__feature
    WHERE site = $site AND recipe = 'native'
)

SELECT *
FROM scans
LEFT JOIN measured USING (series_key, revision)
ORDER BY series_key
