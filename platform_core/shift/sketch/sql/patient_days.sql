-- patient_days: every feature of every patient-day of one site, by one recipe.
--
-- reads    core__feature
--          usable(series_key VARCHAR, revision BIGINT, patient_key VARCHAR, stratum VARCHAR, day DATE)
-- params   $site      VARCHAR
--          $recipe    VARCHAR
--          $first_day DATE       first day, inclusive
--          $last_day  DATE       last day, inclusive
-- returns  stratum VARCHAR, day DATE, patient_key VARCHAR
--          one DOUBLE per feature column of core__feature, under its name; never NaN or infinite: NULL if none is known
--          in order of stratum, day and patient
--          of several scans of a patient-day each feature is that of the first in key order that has it

WITH

-- every column that is not about the row itself is a feature
wide AS (
    SELECT
        series_key,
        revision,
        COLUMNS(* EXCLUDE (site, series_key, revision, recipe, stratum, observed_on, run))::DOUBLE
    FROM core__feature
    WHERE site = $site AND recipe = $recipe AND observed_on BETWEEN $first_day AND $last_day
    QUALIFY row_number() OVER (PARTITION BY series_key, revision) = 1
),

measured AS (
    SELECT
        series_key,
        revision,
        CASE
            WHEN isfinite(COLUMNS(* EXCLUDE (series_key, revision))) THEN COLUMNS(* EXCLUDE (series_key, revision))
        END
    FROM wide
)

SELECT
    stratum,
    day,
    patient_key,
    arg_min(COLUMNS(measured.* EXCLUDE (series_key, revision)), series_key)
FROM usable
JOIN measured USING (series_key, revision)
GROUP BY stratum, day, patient_key
ORDER BY stratum, day, patient_key
