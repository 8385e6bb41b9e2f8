-- label_verdicts: what the readings of each series come to.
--
-- reads    reading(site VARCHAR, series_key VARCHAR, value VARCHAR, sampling_probability DOUBLE, run VARCHAR,
--              counts BOOLEAN)
--          asked(site VARCHAR, series_key VARCHAR, sampling_probability DOUBLE)  scans that were asked for
-- returns  site VARCHAR, series_key VARCHAR
--          value VARCHAR  what more readings say than anything else; NULL where none leads
--          sampling_probability DOUBLE  by which the scan was asked for by now, or as stated with the label, whichever
--              is greater: a list that was written before the chance rose states the lower one; NULL if neither is known
--          n_readings BIGINT, n_values BIGINT  readings that count, and how many different things they say
--          in order of site and series

WITH

-- every value that is said of a series
said AS (
    SELECT site, series_key, value, count(*) AS n, arg_max(sampling_probability, run) AS chance, max(run) AS run
    FROM reading
    WHERE counts
    GROUP BY site, series_key, value
),

-- beside the most that any value has
ranked AS (
    SELECT *, max(n) OVER (PARTITION BY site, series_key) AS most
    FROM said
),

verdict AS (
    SELECT
        site,
        series_key,
        CASE WHEN count(*) FILTER (n = most) = 1 THEN any_value(value) FILTER (n = most) END AS value,
        arg_max(chance, run) AS stated,
        CAST(sum(n) AS BIGINT) AS n_readings,
        count(*) AS n_values
    FROM ranked
    GROUP BY site, series_key
)

SELECT
    verdict.site,
    verdict.series_key,
    value,
    greatest(asked.sampling_probability, stated) AS sampling_probability,
    n_readings,
    n_values
FROM verdict
LEFT JOIN asked USING (site, series_key)
ORDER BY verdict.site, verdict.series_key
