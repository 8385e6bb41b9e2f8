-- grids: the grids that one site's scans lie on.
--
-- reads    core__series
-- params   $site VARCHAR
-- returns  modality VARCHAR, geometry VARCHAR, orientation VARCHAR, n BIGINT scans,
--          x_low BIGINT, x_high BIGINT, z_low BIGINT, z_high BIGINT               voxels
--          dx_low DOUBLE, dx_high DOUBLE, dz_low DOUBLE, dz_high DOUBLE           mm

WITH

-- accepted scans at their present revision
scans AS (
    SELECT *
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
)

SELECT
    modality,
    geometry,
    orientation,
    count(*) AS n,
    min(n_x) AS x_low,
    max(n_x) AS x_high,
    min(n_z) AS z_low,
    max(n_z) AS z_high,
    min(spacing_x_mm) AS dx_low,
    max(spacing_x_mm) AS dx_high,
    min(spacing_z_mm) AS dz_low,
    max(spacing_z_mm) AS dz_high
FROM scans
GROUP BY modality, geometry, orientation
ORDER BY n DESC, modality, geometry, orientation
