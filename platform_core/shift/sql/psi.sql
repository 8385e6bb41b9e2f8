-- psi: population stability index of each feature, current against reference.
--
-- reads    reference(feature VARCHAR, value DOUBLE)
--          current(feature VARCHAR, value DOUBLE)
-- params   $bins INTEGER  equal-frequency bins of the reference, >= 2
-- returns  feature VARCHAR, value DOUBLE
-- range    [0, inf) nats; 0 on identical samples, about (bins - 1) (1/m + 1/n) on samples of one population
-- source   Yurdakul & Naranjo 2020, doi:10.21314/JRMV.2020.227; half a count is added per bin and sample

WITH

-- interior bin edges: values of the reference (a bin ends with its edge); equal ones are one edge
edges AS (
    SELECT feature, list_sort(list_distinct(quantile_disc(value, [i / $bins FOR i IN range(1, $bins)]))) AS edge
    FROM reference
    GROUP BY feature
),

-- every value of either sample, with the bin it falls in
binned AS (
    SELECT feature, is_current, len(list_filter(edge, lambda e: e < value)) AS bin
    FROM (
        SELECT false AS is_current, feature, value FROM reference
        UNION ALL
        SELECT true AS is_current, feature, value FROM current
    )
    JOIN edges USING (feature)
),

-- values of each sample per bin that either one reaches, and half a count
counts AS (
    SELECT
        feature,
        bin,
        0.5 + count(*) FILTER (NOT is_current) AS n_reference,
        0.5 + count(*) FILTER (is_current) AS n_current
    FROM binned
    GROUP BY feature, bin
),

-- share of each sample per bin
shares AS (
    SELECT
        feature,
        bin,
        n_reference / sum(n_reference) OVER every_bin AS p,
        n_current / sum(n_current) OVER every_bin AS q
    FROM counts
    WINDOW every_bin AS (PARTITION BY feature)
)

SELECT feature, sum((q - p) * ln(q / p) ORDER BY bin) AS value
FROM shares
GROUP BY feature
ORDER BY feature
