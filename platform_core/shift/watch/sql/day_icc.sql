-- day_icc: how alike the patient-days of one day are, per feature.
--
-- reads    observed(series_key VARCHAR, patient_key VARCHAR, observed_on DATE, arrived_at TIMESTAMPTZ,
--                   feature VARCHAR, value DOUBLE)
-- returns  feature VARCHAR
--          icc DOUBLE       of the ranks of the values; NULL if no day has two patients, or all values are equal
--          n BIGINT         patient-days
--          n_days BIGINT
--          n_per_day BIGINT lower quartile of patient-days per day
-- range    (-1, 1]; 0 where days do not matter
-- source   one-way analysis of variance, unequal groups: Donner 1986, International Statistical Review 54(1), 67-82

WITH

-- the rank of every patient-day, as a share; equal values share theirs
ranked AS (
    SELECT feature, observed_on, (rank() OVER up + count(*) OVER ties / 2.0) / count(*) OVER whole AS value
    FROM (
        FROM observed
        WHERE isfinite(value)
        QUALIFY row_number() OVER (PARTITION BY feature, patient_key, observed_on ORDER BY arrived_at, series_key) = 1
    )
    WINDOW
        up AS (PARTITION BY feature ORDER BY value),
        ties AS (PARTITION BY feature, value),
        whole AS (PARTITION BY feature)
),

days AS (
    SELECT feature, observed_on, count(*) AS n, avg(value) AS mean, var_pop(value) * count(*) AS within
    FROM ranked
    GROUP BY feature, observed_on
),

-- sums of squares between and within days
sums AS (
    SELECT
        feature,
        sum(n) AS n,
        count(*) AS n_days,
        quantile_disc(n, 0.25) AS n_per_day,
        sum(within ORDER BY observed_on) / nullif(sum(n) - count(*), 0) AS within,
        (sum(n * mean * mean ORDER BY observed_on) - sum(n * mean ORDER BY observed_on) ** 2 / sum(n))
            / nullif(count(*) - 1, 0) AS between_days,
        (sum(n) - sum(n * n) / sum(n)) / nullif(count(*) - 1, 0) AS size
    FROM days
    GROUP BY feature
)

SELECT
    feature,
    (between_days - within) / nullif(between_days + (size - 1) * within, 0) AS icc,
    CAST(n AS BIGINT) AS n,
    n_days,
    CAST(n_per_day AS BIGINT) AS n_per_day
FROM sums
ORDER BY feature
