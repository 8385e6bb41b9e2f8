-- readings: what each reader says of each series of one target now, and which of it counts.
--
-- reads    core__label
-- params   $target      VARCHAR
--          $adjudicator VARCHAR  the reader whose reading overrules all others
-- returns  site VARCHAR, series_key VARCHAR
--          reader VARCHAR     pseudonym; readings whose reader is not named are one reader's
--          guideline VARCHAR, value VARCHAR, labelled_on DATE, sampling_probability DOUBLE, run VARCHAR
--          is_last BOOLEAN    read by the guideline that was read by last, or by none that is stated
--          counts BOOLEAN     whether it decides which label is in force
--          in order of site, series and reader; several rows of one reader contradict one another

WITH

-- what was imported last of each reader
imported AS (
    SELECT DISTINCT site, series_key, reader, guideline, value, labelled_on, sampling_probability, run
    FROM core__label
    WHERE target = $target AND value IS NOT NULL
    QUALIFY run = max(run) OVER (PARTITION BY site, series_key, reader)
),

-- what that reader said last
said AS (
    SELECT *
    FROM imported
    QUALIFY labelled_on IS NOT DISTINCT FROM max(labelled_on) OVER (PARTITION BY site, series_key, reader)
),

-- beside the guideline that was read by last, and whether somebody has adjudicated
placed AS (
    SELECT
        *,
        first_value(guideline) OVER (
            PARTITION BY site, series_key
            ORDER BY guideline IS NULL, labelled_on DESC NULLS LAST, run DESC, guideline
        ) AS last_guideline,
        bool_or(coalesce(reader = $adjudicator, false)) OVER (PARTITION BY site, series_key) AS is_adjudicated
    FROM said
)

SELECT
    site,
    series_key,
    reader,
    guideline,
    value,
    labelled_on,
    sampling_probability,
    run,
    guideline IS NULL OR guideline = last_guideline AS is_last,
    CASE WHEN is_adjudicated THEN coalesce(reader = $adjudicator, false) ELSE is_last END AS counts
FROM placed
ORDER BY site, series_key, reader, value, guideline
