-- bins: the bins of every histogram of one reference, and the coarser bins that they make up.
--
-- reads    reference(stratum VARCHAR, feature VARCHAR, kind VARCHAR, edges DOUBLE[], n BIGINT, sketch DOUBLE[])
-- params   $bins INTEGER  coarse bins that hold about equal shares of the reference, >= 2
-- returns  stratum VARCHAR, feature VARCHAR
--          bin INTEGER, 1 is below the first edge, the last above the last edge
--          upper DOUBLE, the edge it ends with, in the feature's unit; NULL for the last
--          width DOUBLE, from its lower edge, in the feature's unit; 0 for the first and the last
--          coarse INTEGER, 0, 1, ...
--          in order of stratum, feature and bin

WITH

bins AS (
    SELECT
        stratum,
        feature,
        n,
        unnest(sketch) AS n_bin,
        unnest(edges) AS upper,
        generate_subscripts(sketch, 1) AS bin
    FROM reference
    WHERE kind = 'histogram'
)

SELECT
    stratum,
    feature,
    bin::INTEGER AS bin,
    upper,
    coalesce(upper - lag(upper) OVER below, 0) AS width,
    least(floor((sum(n_bin) OVER below - n_bin / 2) / n * $bins), $bins - 1)::INTEGER AS coarse
FROM bins
WINDOW below AS (PARTITION BY stratum, feature ORDER BY bin ROWS UNBOUNDED PRECEDING)
ORDER BY stratum, feature, bin
