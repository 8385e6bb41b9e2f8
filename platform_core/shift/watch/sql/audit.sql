-- audit: every rank as it is written, beside what the definition gives from the values alone.
--
-- reads    core__rank
-- params   $site      VARCHAR
--          $stratum   VARCHAR
--          $recipe    VARCHAR
--          $reference VARCHAR
--          $since     BIGINT  first sequence that is looked at
-- returns  feature VARCHAR, sequence BIGINT, series_key VARCHAR
--          written DOUBLE, expected DOUBLE, (0, 1)
--          in order of feature and sequence
-- source   conformal ranks with randomised ties: Vovk 2019, arXiv:1906.09256, section 2

WITH

stream AS (
    FROM core__rank
    WHERE site = $site AND stratum = $stratum AND recipe = $recipe AND reference = $reference
)

SELECT
    new.feature,
    new.sequence,
    any_value(new.series_key) AS series_key,
    any_value(new.rank) AS written,
    (
        count(*) FILTER (earlier.value < new.value)
        + any_value(new.tie_break) * (1 + count(*) FILTER (earlier.value = new.value))
    ) / (count(earlier.value) + 1) AS expected
FROM stream AS new
LEFT JOIN stream AS earlier
    ON earlier.feature = new.feature AND earlier.sequence < new.sequence
WHERE new.sequence >= greatest($since, 0)
GROUP BY new.feature, new.sequence
ORDER BY new.feature, new.sequence
