-- decisions_about: what was decided about one site, stratum and target, with what each finding said.
--
-- reads    decided  every decision at its latest status, as decisions.sql returns it
--          out__finding
-- params   $site    VARCHAR
--          $stratum VARCHAR
--          $target  VARCHAR
-- returns  decision_key VARCHAR, action VARCHAR, rule VARCHAR, status VARCHAR, approved_by VARCHAR,
--          evidence VARCHAR, first_decided_at TIMESTAMPTZ, decided_at TIMESTAMPTZ,
--          kind VARCHAR, size DOUBLE, period_start DATE
--          oldest decision first

WITH

-- what each finding said
said AS (
    SELECT
        finding_key,
        any_value(kind) AS kind,
        any_value(size) AS size,
        any_value(period_start) AS period_start
    FROM out__finding
    WHERE site = $site AND stratum = $stratum AND target = $target
    GROUP BY finding_key
)

SELECT
    decided.decision_key,
    decided.action,
    decided.rule,
    decided.status,
    decided.approved_by,
    decided.evidence,
    decided.first_decided_at,
    decided.decided_at,
    said.kind,
    said.size,
    said.period_start
FROM decided
JOIN said USING (finding_key)
WHERE decided.site = $site
ORDER BY decided.first_decided_at, decided.step, decided.decision_key
