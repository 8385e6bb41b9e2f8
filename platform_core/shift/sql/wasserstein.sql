-- wasserstein: earth mover's distance of each feature in standard deviations of the reference.
--
-- reads    reference(feature VARCHAR, value DOUBLE)
--          current(feature VARCHAR, value DOUBLE)
-- returns  feature VARCHAR, value DOUBLE
-- range    [0, inf) reference SD; 0 on identical samples; NULL where the reference is constant and current is not
-- source   Vallender 1974, doi:10.1137/1118101: the area between the two distribution functions

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

-- from each value to the next: its width, and the share of each sample at or below it
steps AS (
    SELECT
        feature,
        value,
        lead(value) OVER up - value AS width,
        sum(n_reference) OVER up / sum(n_reference) OVER whole AS f,
        sum(n_current) OVER up / sum(n_current) OVER whole AS g
    FROM pooled
    WINDOW
        up AS (PARTITION BY feature ORDER BY value),
        whole AS (PARTITION BY feature)
),

areas AS (
    SELECT feature, coalesce(sum(abs(f - g) * width ORDER BY value), 0) AS area
    FROM steps
    GROUP BY feature
),

spreads AS (
    SELECT feature, stddev_pop(value) AS sd
    FROM reference
    GROUP BY feature
)

SELECT feature, CASE WHEN area = 0 THEN 0 ELSE area / nullif(sd, 0) END AS value
FROM areas
JOIN spreads USING (feature)
ORDER BY feature
