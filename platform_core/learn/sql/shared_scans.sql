-- shared_scans: patients under whose keys the same image lies: in all likelihood one person with two identifiers.
--
-- reads    core__series
--          core__stage
-- returns  patient_key VARCHAR, other VARCHAR (the least key of those that share a scan with it), no row with itself

WITH

-- revisions that quality has stopped: an empty image is everybody's
stopped AS (
    SELECT DISTINCT series_key, revision
    FROM core__stage
    WHERE stage = 'quality' AND outcome = 'refused'
),

-- every image that a patient has, at every site and revision
seen AS (
    SELECT DISTINCT patient_key, volume_sha256
    FROM core__series
    ANTI JOIN stopped USING (series_key, revision)
    WHERE volume_sha256 IS NOT NULL AND patient_key IS NOT NULL
),

-- the first of those who have it
first_seen AS (
    SELECT patient_key, min(patient_key) OVER (PARTITION BY volume_sha256) AS other
    FROM seen
)

SELECT DISTINCT patient_key, other
FROM first_seen
WHERE patient_key <> other
ORDER BY patient_key, other
