-- ks: Kolmogorov-Smirnov distance of each feature, current against reference.
--
-- reads    reference(feature VARCHAR, value DOUBLE)
--          current(feature VARCHAR, value DOUBLE)
-- returns  feature VARCHAR, value DOUBLE
-- range    [0, 1]; 0 on identical samples, 1 where no value of one lies among those of the other; symmetric
-- source   Smirnov 1948, doi:10.1214/aoms/1177730256

WITH

-- one row per distinct value: how many of each sample have it
pooled AS (
    SELECT feature, value, sum(in_reference) AS n_reference, sum(in_current) AS n_current
    FROM (
        SELECT feature, value, 1 AS in_reference, 0 AS in_current FROM reference
        UNION ALL
        SELECT feature, value, 0 AS in_reference, 1 AS in_current FROM current
    )
    GROUP BY feature, value
),

-- share of each sample at or below the value
ecdf AS (
    SELECT
        feature,
        sum(n_reference) OVER up_to / sum(n_reference) OVER whole AS f,
        sum(n_current) OVER up_to / sum(n_current) OVER whole AS g
    FROM pooled
    WINDOW
        up_to AS (PARTITION BY feature ORDER BY value ROWS UNBOUNDED PRECEDING),
        whole AS (PARTITION BY feature)
)

SELECT feature, max(abs(f - g)) AS value
FROM ecdf
GROUP BY feature
ORDER BY feature
