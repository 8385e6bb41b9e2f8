-- requested: who could have been asked for a label of one target, as it stands now.
--
-- reads    out__request
-- params   $target VARCHAR
-- returns  site VARCHAR, series_key VARCHAR, patient_key VARCHAR, stratum VARCHAR, period_start DATE
--          request_key VARCHAR, finding_key VARCHAR  of the last drawing that the patient was in
--          drawn VARCHAR  uniform or informed; NULL: not drawn so far
--          random_number DOUBLE, sampling_probability DOUBLE
--          requested_at TIMESTAMPTZ  when the patient was drawn; NULL if not
--          in order of site and series

SELECT
    site,
    series_key,
    patient_key,
    stratum,
    period_start,
    request_key,
    finding_key,
    drawn,
    random_number,
    sampling_probability,
    min(requested_at) FILTER (drawn IS NOT NULL) OVER (PARTITION BY site, series_key) AS requested_at
FROM out__request
WHERE target = $target
QUALIFY row_number() OVER (PARTITION BY site, series_key ORDER BY sampling_probability DESC, requested_at DESC) = 1
ORDER BY site, series_key
