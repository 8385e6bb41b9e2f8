-- sound_series: series of one modality that passed quality.
--
-- reads    core__series
--          core__stage
-- params   $site     VARCHAR
--          $modality VARCHAR
-- returns  series_key VARCHAR

WITH

-- the present revision of every series of the modality
present AS (
    SELECT series_key, max(revision) AS revision
    FROM core__series
    WHERE site = $site AND modality = $modality AND volume_uri IS NOT NULL
    GROUP BY series_key
)

SELECT series_key
FROM present
SEMI JOIN (
    FROM core__stage
    WHERE site = $site AND stage = 'quality' AND outcome = 'done'
) AS passed USING (series_key, revision)
ORDER BY series_key
