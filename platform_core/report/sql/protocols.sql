-- protocols: scans of one site that were made alike, as far as their headers say.
--
-- reads    core__series
-- params   $site VARCHAR
-- returns  modality VARCHAR, body_part VARCHAR, manufacturer VARCHAR, scanner_model VARCHAR, kernel VARCHAR,
--          kvp DOUBLE, repetition_time_ms DOUBLE, echo_time_ms DOUBLE, field_strength_t DOUBLE,
--          spacing_x_mm DOUBLE, spacing_z_mm DOUBLE  to 0.1 mm
--          n_series BIGINT, n_patients BIGINT, first_on DATE, last_on DATE
--          the most frequent protocol first

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
    body_part,
    manufacturer,
    scanner_model,
    kernel,
    kvp,
    repetition_time_ms,
    echo_time_ms,
    field_strength_t,
    round(spacing_x_mm, 1) AS spacing_x_mm,
    round(spacing_z_mm, 1) AS spacing_z_mm,
    count(*) AS n_series,
    count(DISTINCT patient_key) AS n_patients,
    min(observed_on) AS first_on,
    max(observed_on) AS last_on
FROM scans
GROUP BY ALL
ORDER BY n_series DESC, modality, manufacturer, scanner_model, kernel, first_on
