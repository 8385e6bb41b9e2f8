-- due: one value per patient-day, or per day, of those that have no rank yet, in order of arrival.
--
-- reads    observed(series_key VARCHAR, revision BIGINT, patient_key VARCHAR, observed_on DATE,
--                   arrived_at TIMESTAMPTZ, feature VARCHAR, value DOUBLE)  whole days
--          taken(series_key VARCHAR, feature VARCHAR, observed_on DATE, sequence BIGINT)  ranked, or of the reference
--          unit(feature VARCHAR, unit VARCHAR, n_values BIGINT)
-- returns  feature VARCHAR, series_key VARCHAR, revision BIGINT, observed_on DATE
--          unit VARCHAR, n_values BIGINT, value DOUBLE
--          per feature in order of arrival: first taken in, then day, then key, which is a hash

WITH

-- the first series of every patient-day; `is_new` if none of the patient-day has a rank
patient_day AS (
    SELECT
        observed.*,
        NOT bool_or(taken.series_key IS NOT NULL) OVER patient_day AS is_new
    FROM observed
    LEFT JOIN (SELECT series_key, feature FROM taken) AS taken USING (series_key, feature)
    WHERE isfinite(value)
    WINDOW patient_day AS (PARTITION BY feature, patient_key, observed_on)
    QUALIFY row_number() OVER (patient_day ORDER BY arrived_at, series_key) = 1
),

-- days that have a rank, or that a reference of the same site holds
closed_day AS (
    SELECT DISTINCT feature, observed_on
    FROM taken
    WHERE sequence >= 0 OR series_key IN (SELECT series_key FROM observed)
),

-- the patient-days whose median stands for a day: as many on every day, or the spread would follow the volume
chosen AS (
    SELECT patient_day.*, unit.n_values
    FROM patient_day
    JOIN unit USING (feature)
    WHERE unit.unit = 'day'
        AND (feature, observed_on) NOT IN (FROM closed_day)
    QUALIFY row_number() OVER (PARTITION BY feature, observed_on ORDER BY series_key) <= unit.n_values
        AND count(*) OVER (PARTITION BY feature, observed_on) >= unit.n_values
),

-- the lower median is a value that a series has
median AS (
    SELECT chosen.* REPLACE (max(arrived_at) OVER whole_day AS arrived_at)
    FROM chosen
    WINDOW whole_day AS (PARTITION BY feature, observed_on)
    QUALIFY row_number() OVER (whole_day ORDER BY value, series_key) = (n_values + 1) // 2
),

due AS (
    SELECT feature, series_key, revision, observed_on, arrived_at, unit, n_values, value
    FROM patient_day
    JOIN unit USING (feature)
    WHERE is_new AND unit = 'patient_day'
    UNION ALL
    SELECT feature, series_key, revision, observed_on, arrived_at, 'day' AS unit, n_values, value
    FROM median
)

SELECT * EXCLUDE arrived_at
FROM due
ORDER BY feature, arrived_at, observed_on, series_key
