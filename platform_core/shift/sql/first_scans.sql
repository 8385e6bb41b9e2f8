-- first_scans: the first scan of every patient in every stratum and period of one site.
--
-- reads    core__series
--          core__stage
--          cut(stratum VARCHAR, period_start DATE)  days on which a period begins whatever the calendar says
-- params   $site            VARCHAR
--          $modalities      VARCHAR[]    NULL for all
--          $period_days     INTEGER      length of a period; periods follow one another from a Monday or a cut on
--          $observed_before DATE         only scans before this day; NULL for all
--          $ingested_by     TIMESTAMPTZ  only scans that were in the manifest at this moment; NULL for all
-- returns  stratum VARCHAR
--          period_start DATE, period_end DATE, first and last day of the period
--          series_key VARCHAR, revision BIGINT, patient_key VARCHAR
--          scanner_model VARCHAR, manufacturer VARCHAR, kernel VARCHAR, kvp VARCHAR, echo_time_ms VARCHAR,
--          repetition_time_ms VARCHAR, field_strength_t VARCHAR, view VARCHAR, software VARCHAR
--          in order of stratum, period and patient

WITH

-- the present revision of every accepted series
present AS (
    SELECT *
    FROM core__series
    WHERE site = $site AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
),

-- series that quality has refused
refused AS (
    SELECT series_key, revision
    FROM core__stage
    WHERE site = $site AND stage = 'quality' AND outcome = 'refused'
),

-- the days that periods are counted from: the Monday on or before the site's first day, and every cut
origin AS (
    SELECT stratum, CAST((SELECT date_trunc('week', min(observed_on)) FROM present) AS DATE) AS first_day
    FROM present
    UNION
    SELECT stratum, period_start AS first_day
    FROM cut
),

-- until when each of them counts
span AS (
    SELECT stratum, first_day, lead(first_day) OVER (PARTITION BY stratum ORDER BY first_day) AS next_day
    FROM origin
),

-- usable series and the period they fall in
dated AS (
    SELECT
        present.*,
        CAST(
            first_day + CAST((observed_on - first_day) // $period_days * $period_days AS INTEGER) AS DATE
        ) AS period_start,
        next_day
    FROM present
    JOIN span
        ON span.stratum IS NOT DISTINCT FROM present.stratum
        AND observed_on >= first_day
        AND (next_day IS NULL OR observed_on < next_day)
    WHERE NOT EXISTS (
            FROM refused WHERE (refused.series_key, refused.revision) = (present.series_key, present.revision)
        )
        AND ($modalities IS NULL OR list_contains($modalities, modality))
        AND ($observed_before IS NULL OR observed_on < $observed_before)
        AND ($ingested_by IS NULL OR ingested_at <= $ingested_by)
)

SELECT
    stratum,
    period_start,
    CAST(least(period_start + CAST($period_days AS INTEGER), next_day) - 1 AS DATE) AS period_end,
    series_key,
    revision,
    patient_key,
    scanner_model,
    manufacturer,
    kernel,
    CAST(kvp AS VARCHAR) AS kvp,
    CAST(echo_time_ms AS VARCHAR) AS echo_time_ms,
    CAST(repetition_time_ms AS VARCHAR) AS repetition_time_ms,
    CAST(field_strength_t AS VARCHAR) AS field_strength_t,
    view,
    software
FROM dated
QUALIFY row_number() OVER (PARTITION BY stratum, period_start, patient_key ORDER BY observed_on, series_key) = 1
ORDER BY stratum, period_start, patient_key
