-- trained_scans: the scans of a frozen list with what the manifest knows of them.
--
-- reads    listed(site VARCHAR, series_key VARCHAR, revision BIGINT)
--          core__series
-- params   none
-- returns  site VARCHAR, series_key VARCHAR, patient_key VARCHAR, manufacturer VARCHAR, modality VARCHAR,
--          observed_on DATE
--          one row per listed scan that the manifest still has, by site and series

SELECT
    listed.site,
    listed.series_key,
    series.patient_key,
    series.manufacturer,
    series.modality,
    series.observed_on
FROM listed
JOIN core__series AS series USING (site, series_key, revision)
ORDER BY listed.site, listed.series_key
