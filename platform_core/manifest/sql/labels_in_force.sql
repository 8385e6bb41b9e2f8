-- labels_in_force: the label that counts for each series of one target.
--
-- reads    core__label
-- params   $target VARCHAR
-- returns  site VARCHAR, series_key VARCHAR, value VARCHAR, sampling_probability DOUBLE

SELECT site, series_key, value, sampling_probability
FROM core__label
WHERE target = $target AND value IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY site, series_key
    ORDER BY run DESC, labelled_on DESC NULLS LAST, reader NULLS LAST, value
) = 1
ORDER BY site, series_key
