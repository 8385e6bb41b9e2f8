-- shift_table: every statistic of one site, stratum and period, one row per comparison and feature.
--
-- reads    out__shift
-- params   $site         VARCHAR
--          $stratum      VARCHAR
--          $period_start DATE
-- returns  reference VARCHAR   what was compared with: model@version, or site@period
--          recipe VARCHAR, feature VARCHAR
--          ks DOUBLE, low DOUBLE, high DOUBLE  Kolmogorov-Smirnov distance and its 95 % interval
--          p DOUBLE            of the distance, or of the one statistic that there is
--          wasserstein DOUBLE, psi DOUBLE, jensen_shannon DOUBLE, mmd DOUBLE
--          n_current BIGINT, n_reference BIGINT  patients
--          furthest first

WITH

-- each statistic as the latest run found it
latest AS (
    SELECT *
    FROM out__shift
    WHERE
        site = $site
        AND stratum = $stratum
        AND period_start = $period_start
        AND NOT starts_with(reference, 'receipt/') -- recipe trials have a page of their own
    QUALIFY row_number() OVER (PARTITION BY recipe, reference, feature, statistic ORDER BY run DESC) = 1
)

SELECT
    reference,
    recipe,
    feature,
    any_value(value) FILTER (statistic = 'ks') AS ks,
    any_value(low) FILTER (statistic = 'ks') AS low,
    any_value(high) FILTER (statistic = 'ks') AS high,
    any_value(evidence) FILTER (statistic IN ('ks', 'mmd')) AS p,
    any_value(value) FILTER (statistic = 'wasserstein') AS wasserstein,
    any_value(value) FILTER (statistic = 'psi') AS psi,
    any_value(value) FILTER (statistic = 'jensen_shannon') AS jensen_shannon,
    any_value(value) FILTER (statistic = 'mmd') AS mmd,
    max(n_current) AS n_current,
    max(n_reference) AS n_reference
FROM latest
GROUP BY reference, recipe, feature
ORDER BY ks DESC NULLS LAST, feature, reference, recipe
