-- merged_series: core__series as every reader sees it, each scan under the patient that a merge has kept.
--
-- reads    core__series_as_written  core__series, its rows as they were written
--          core__patient_merge
-- params   none
-- returns  all columns of core__series, in their order

WITH

-- the last word on each patient key; kept keys are never themselves put under another
kept AS (
    SELECT patient_key, kept_key
    FROM core__patient_merge
    QUALIFY row_number() OVER (PARTITION BY patient_key ORDER BY epoch DESC) = 1
)

SELECT written.* REPLACE (coalesce(kept.kept_key, written.patient_key) AS patient_key)
FROM core__series_as_written AS written
LEFT JOIN kept ON kept.patient_key = written.patient_key
