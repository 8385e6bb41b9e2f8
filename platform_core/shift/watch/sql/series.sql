-- series: the series that are to be ranked, and all others of their days, of patients who are new.
--
-- reads    core__series
--          core__stage
--          chosen(series_key VARCHAR)
-- params   $site        VARCHAR
--          $stratum     VARCHAR
--          $return_days INTEGER  a patient who was seen within so many days before is no new observation
-- returns  series_key VARCHAR, revision BIGINT  the present one
--          patient_key VARCHAR, observed_on DATE
--          arrived_at TIMESTAMPTZ, when its first revision was taken in
--          in key order; without what quality refused

WITH

-- the present revision of every accepted series of the stratum
present AS (
    SELECT
        series_key,
        revision,
        patient_key,
        observed_on,
        min(ingested_at) OVER (PARTITION BY series_key) AS arrived_at
    FROM core__series
    WHERE site = $site AND stratum = $stratum AND volume_uri IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY revision DESC) = 1
),

-- series that quality has refused
refused AS (
    SELECT series_key, revision
    FROM core__stage
    WHERE site = $site AND stage = 'quality' AND outcome = 'refused'
),

-- the first visit of a patient, or the first after a long while
visit AS (
    SELECT *
    FROM present
    WHERE (series_key, revision) NOT IN (FROM refused)
    QUALIFY NOT coalesce(
        bool_or(true) OVER (
            PARTITION BY patient_key
            ORDER BY observed_on
            RANGE BETWEEN to_days($return_days) PRECEDING AND INTERVAL 1 DAY PRECEDING
        ),
        false
    )
),

-- days on which something new was observed
days AS (
    SELECT DISTINCT observed_on
    FROM present
    JOIN chosen USING (series_key)
)

SELECT series_key, revision, patient_key, observed_on, arrived_at
FROM visit
JOIN days USING (observed_on)
ORDER BY series_key
