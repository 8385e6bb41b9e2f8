"""One finding at one site, and what comes next for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.serving import Serving, change_serving, current_serving
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy import episodes
from platform_core.policy.approvals import drop_unanswered, with_consent
from platform_core.policy.decide import Decision, Status, decide
from platform_core.policy.evidence import read_situation
from platform_core.policy.history import CARRIED_OUT, History, read_history
from platform_core.policy.record import decision_key, record_decision
from platform_core.policy.table import policy_of
from platform_core.shift.risk import Estimate, RiskReport
from platform_core.shift.stage import measure_shift
from platform_core.shift.watch.raised import alarm_behind
from platform_core.trial.before_after import harm_of, risk_under
from platform_core.trial.label_request import request_labels
from platform_core.trial.masked import in_overlap, overlap_risk, with_overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A handle on one finding: what tasks pass between them."""

    uri: str
    site: str
    target: str
    finding_key: str
    headline: str
    keys: tuple[str, ...]
    """Every series of the finding's stratum and period."""
    run: str
    at: datetime

    @property
    def workspace(self) -> Workspace:
        """Where the case lies."""
        return open_workspace(self.uri)

    @property
    def serving(self) -> Serving:
        """What the site runs now."""
        found = current_serving(self.workspace, self.site, self.target)
        assert found is not None, "a case is opened for a site that is served"
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What the policy asks for; `act` names the action to carry out now, None if there is nothing to carry out."""

    act: str | None
    decision: Decision


def open_cases(workspace: Workspace, site: str, target: str, *, run: str, at: datetime) -> list[Case]:
    """Measure and diagnose the site's latest period; one case per stratum."""
    found = measure_shift(workspace, site, target=target, run=run, at=at)
    return [_case(workspace, asdict(finding), run, at) for finding in found]


def finding_of(case: Case) -> dict[str, Any]:
    """The case's row of `out__finding`."""
    where = (pc.field("site") == case.site) & (pc.field("finding_key") == case.finding_key)
    row: dict[str, Any] = case.workspace.lake.read(layout.FINDING, where).to_pylist()[0]
    return row


def risk_now(case: Case, serving: Serving | None = None) -> RiskReport | None:
    """Risk on the period's labelled evaluation patients under a serving, by default the one in force."""
    if _is_segmentation(case):
        return overlap_risk(case.workspace, serving or case.serving, case.keys)
    return risk_under(case.workspace, case.site, case.target, serving or case.serving, case.keys)


def decide_next(case: Case) -> Next:
    """Ask the policy what comes next; what needs no action is recorded here and now."""
    finding = finding_of(case)
    drop_unanswered(case.workspace, finding, run=case.run, at=case.at)
    history = read_history(case.workspace, finding)
    decision = with_consent(_once(case, _decided(case, finding), history), history)
    if decision.action in episodes.ACTS and decision.status != "waiting":
        _begin(case, decision, finding)
        return Next(act=decision.action, decision=decision)
    facts: dict[str, Any] = {}
    if decision.action == "request_labels" and decision.status != "waiting":
        decision, facts = _ask_for_labels(case, decision, finding)
    status: Status = "waiting" if decision.status == "waiting" else "done"
    settle(case, decision, status=status, before=case.serving, facts=facts)
    return Next(act=None, decision=decision)


def _decided(case: Case, finding: Mapping[str, Any]) -> Decision:
    is_marked = _is_segmentation(case)
    if is_marked:
        situation = read_situation(case.workspace, finding, at=case.at)
        situation = with_overlap(case.workspace, case.target, situation, risk_now(case))
        return in_overlap(decide(situation, policy_of(case.workspace)))
    harm = harm_of(case.workspace, case.serving, case.keys, str(finding["stratum"]))
    target_risk, accepted_risk = (harm.risk.log_loss, harm.accepted) if harm else (None, None)
    situation = read_situation(
        case.workspace, finding, at=case.at, target_risk=target_risk, accepted_risk=accepted_risk
    )
    return decide(situation, policy_of(case.workspace))


def _once(case: Case, decision: Decision, history: History) -> Decision:
    """The decision, or a `hold` if it is an act that has been carried out or turned down for this very finding.

    A table that does not ask what was taken already would ask for the same for ever.
    """
    key = decision_key(case.site, case.finding_key, decision)
    ended = (one for one in history.of_period if one.decision_key == key and one.status in (*CARRIED_OUT, "rejected"))
    before = next(ended, None)
    if decision.action not in episodes.ACTS or before is None:
        return decision
    because = (
        f"the policy's row {decision.rule} asks for {decision.action} a second time for the same finding, for which it "
        f"is {before.status}; the row should ask whether that was taken, and a person should look"
    )
    return Decision(action="hold", because=because, rule=decision.rule, status="waiting")


def _ask_for_labels(case: Case, decision: Decision, finding: Mapping[str, Any]) -> tuple[Decision, dict[str, Any]]:
    """Draw the scans that are to be labelled; the decision says how many, and how to get the list."""
    wanted = decision.n_labels_wanted or 0
    asked = request_labels(case.workspace, finding, wanted=wanted, run=case.run, at=case.at)
    return replace(decision, because=f"{decision.because}; {asked.sentence}"), {"request": asked.facts}


def _begin(case: Case, decision: Decision, finding: Mapping[str, Any]) -> None:
    """Record that an action has begun: other runs see a training, and a run that dies leaves a trace."""
    record_decision(
        case.workspace,
        decision,
        finding=finding,
        status="proposed",
        serving_before=case.serving,
        serving_after=None,
        evidence=None,
        run=case.run,
        at=case.at,
    )


def settle(
    case: Case,
    decision: Decision,
    *,
    status: Status,
    before: Serving,
    after: Serving | None = None,
    facts: Mapping[str, Any] | None = None,
    strategy: str | None = None,
) -> str:
    """Record how a decision ended, with the risk before and after, and move the case's episode on.

    Args:
        case: What was decided about.
        decision: What was decided.
        status: How it ended.
        before: What the site ran.
        after: What it runs, or would have run if it was refused; None if nothing was tried.
        facts: More evidence: `gate`, `receipt`, `request`.
        strategy: The winner of a fine-tuning's race.

    Returns:
        decision_key.
    """
    finding = finding_of(case)
    evidence = {
        "policy": policy_of(case.workspace).digest,
        "before": measures(risk_now(case, before)),
        "after": None if after is None else measures(risk_now(case, after)),
        **(facts or {}),
    }
    if status == "refused":
        decision = replace(decision, because=decision.because + _refusal(facts or {}))
    alarm = alarm_behind(case.workspace, finding)  # before the decision, which may answer it
    key = record_decision(
        case.workspace,
        decision,
        finding=finding,
        status=status,
        serving_before=before,
        serving_after=after if status == "done" else None,
        evidence=evidence,
        run=case.run,
        at=case.at,
        strategy=strategy,
    )
    acted = status == "done" and after is not None
    alarm_key = None if alarm is None else alarm.alarm_key
    episodes.follow(case.workspace, finding, has_acted=acted, run=case.run, at=case.at, alarm_key=alarm_key)
    return key


def _refusal(facts: Mapping[str, Any]) -> str:
    """What the sentence of trying lacks: why nothing came of it; a gate's and a prior's reasons stand there already."""
    receipt = facts.get("receipt", {})
    tried = [f"{one['adaptation']}: {one['because']}" for one in facts.get("adaptations", ())]
    steps = [f"a step does harm: {told}" for told in receipt.get("refused_steps", ())]
    measured = [receipt["because"]] if "because" in receipt else []
    reasons = [facts["refused"]] if "refused" in facts else [*tried, *measured, *steps]
    return f"; it is refused: {'; '.join(reasons)}" if reasons else ""


def serve(case: Case, wanted: Serving, decision: Decision) -> Serving:
    """Put a serving in force because of a decision about the case."""
    key = decision_key(case.site, case.finding_key, decision)
    return change_serving(case.workspace, wanted, decision_key=key, at=case.at, run=case.run)


def measures(report: RiskReport | None) -> dict[str, Any] | None:
    """A risk report as decisions record it: [value, low, high] each, None where the scans cannot tell."""
    if report is None:
        return None
    named = {name: _triple(getattr(report, name)) for name in ("log_loss", "brier", "balanced_error", "auroc")}
    if report.overlap_loss is not None:
        named["overlap_loss"] = _triple(report.overlap_loss)
    return {**named, "n": report.n_patients}


def _is_segmentation(case: Case) -> bool:
    return case.workspace.target(case.target).task == "segmentation"


def _triple(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def _case(workspace: Workspace, finding: Mapping[str, Any], run: str, at: datetime) -> Case:
    alarm = alarm_behind(workspace, finding)
    since = "" if alarm is None else f" (since an alarm of {alarm.alarmed_on})"
    return Case(
        uri=workspace.uri,
        site=str(finding["site"]),
        target=str(finding["target"]),
        finding_key=str(finding["finding_key"]),
        headline=f"{finding['kind']}{since}: {finding['explained_by']}",
        keys=_series_of(workspace, finding),
        run=run,
        at=at,
    )


def _series_of(workspace: Workspace, finding: Mapping[str, Any]) -> tuple[str, ...]:
    series = current_series(workspace, str(finding["site"]))
    inside = (
        (pc.field("stratum") == finding["stratum"])
        & (pc.field("observed_on") >= finding["period_start"])
        & (pc.field("observed_on") <= finding["period_end"])
    )
    return tuple(series.filter(inside).column("series_key").to_pylist())
