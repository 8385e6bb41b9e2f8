-- row_counts: how many rows of each unit lie in each of the equal bins of a range.
--
-- reads    chosen(unit VARCHAR, value DOUBLE)
-- params   $low   DOUBLE   where the first bin begins
--          $scale DOUBLE   bins per unit of the value; 0 for a constant reference
--          $bins  INTEGER
-- returns  unit VARCHAR
--          bin INTEGER, 0 below the range, 1 .. $bins, $bins + 1 above; a bin begins with its lower edge
--          n BIGINT, above 0
--          NULL, NaN and infinite values are in no bin

-- clamped after the cast: least and greatest of doubles cost several times as much; what no integer holds is far out
SELECT
    unit,
    CASE
        WHEN $scale = 0 THEN 1 + sign(value - $low)::INTEGER
        ELSE 1 + greatest(least(
            coalesce(try_cast(floor((value - $low) * $scale) AS INTEGER), CASE WHEN value < $low THEN -1 ELSE $bins END),
            $bins
        ), -1)
    END AS bin,
    count(*) AS n
FROM chosen
WHERE isfinite(value) AND unit IS NOT NULL
GROUP BY ALL
