-- quality: every quality rule at one site, over all batches.
--
-- reads    out__quality
-- params   $site VARCHAR
-- returns  rule VARCHAR, severity VARCHAR, because VARCHAR,
--          n_failing BIGINT scans,
--          is_judged BOOLEAN  false if no batch had what the rule is about
--          failing rules first, the most severe of them first

SELECT
    rule,
    severity,
    any_value(because) AS because,
    count(DISTINCT series_key) FILTER (NOT passed) AS n_failing,
    bool_or(passed IS NOT NULL) AS is_judged
FROM out__quality
WHERE site = $site
GROUP BY rule, severity
ORDER BY n_failing > 0 DESC, list_position(['error', 'warn', 'info'], severity), n_failing DESC, rule
