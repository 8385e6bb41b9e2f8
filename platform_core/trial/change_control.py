"""The evidence behind a change of model, in the order of a predetermined change control plan.

What changed, on which data at which versions, by which protocol, against which criteria, with which results, and who
approved. Read from the tables; what no table has is told as `not recorded`. It is no plan by itself: the plan is what
was agreed before, this file says what was then done.

Source:
    FDA, "Marketing Submission Recommendations for a Predetermined Change Control Plan for Artificial Intelligence-
    Enabled Device Software Functions", final guidance, December 2024: description of modifications, modification
    protocol (data management, re-training, performance evaluation, update procedures), impact assessment.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from platform_core.errors import BadInput
from platform_core.learn.registry import ModelRef, find, models, read_reference
from platform_core.manifest.workspace import Workspace
from platform_core.policy.table import policy_of
from platform_core.provenance import code_version
from platform_core.trial.model_record import Facts, Record, evidence_of, record_of, told_count

NOT_RECORDED = "not recorded"
JSON_FILE, TEXT_FILE = "docs/change_control.json", "docs/change_control.md"
METADATA = "configs/metadata.json"
"""In a bundle; named here too, because what writes it loads torch."""
GATE_SETTINGS = (
    "min_class_patients",
    "non_inferiority_margin",
    "promotion_alpha",
    "forgetting_margin",
    "calibration_margin",
    "n_seeds",
    "shadow_days",
    "shadow_scans",
)
RACE_SETTINGS = ("n_folds", "n_seeds", "min_labels", "cool_down_days", "gpu_hours_per_month")
OVERLAP_SETTINGS = ("min_class_patients", "promotion_alpha", "dice_margin", "n_seeds", "shadow_days", "shadow_scans")
"""Of the gate for a segmentation."""
PRACTICE = (
    "Patients are drawn to train, validation or evaluation by a hash of their pseudonym, once and for ever; people who "
    "share an image count as one. Only train patients move weights and validation patients set a model's calibration. "
    "Evaluation patients judge at the gate; they also tell the risk that calls for a training, a new recipe or a new "
    "prior. So a challenger is in part judged by the patients who called for it, and the chance that one which is no "
    "better passes is, given such a call, higher than its share of alpha."
)
CRITERIA = (
    "The site that asked must gain in log-loss beyond chance, at this challenger's share of alpha. No other site may "
    "lose more log-loss than non_inferiority_margin, and no site more Brier score than half of it. At no site may the "
    "calibration error get worse beyond chance by more than calibration_margin. The source may not forget: its AUROC "
    "may not fall by more than forgetting_margin. No subgroup (manufacturer) that has enough patients may lose more "
    "log-loss than non_inferiority_margin beyond doubt. Where the race trained from several seeds, their standard "
    "deviation must be below half of the gain. A site that cannot tell stops it."
)
OVERLAP_CRITERIA = (
    "The site that asked must gain in Dice beyond chance, at this challenger's share of alpha. No other site, the "
    "source among them, may lose more Dice than dice_margin. Where the race trained from several seeds, their standard "
    "deviation must be below half of the gain. A site that cannot tell stops it. Probabilities, calibration and "
    "subgroups are not judged."
)


def change_control(workspace: Workspace, model: str, *, at: datetime) -> Facts:
    """Everything on record about one version as a change, JSON-able.

    Raises:
        UnknownName: If there is no such model.
    """
    ref = find(workspace, model)
    record = record_of(workspace, ref)
    made_with = _kept(workspace, ref, METADATA) or {}
    return {
        "file": "evidence of a change, in the order of a predetermined change control plan (FDA, December 2024)",
        "model": ref.name,
        "written_at": at.isoformat(),
        "code_version": {"of_training": made_with.get("code_version", NOT_RECORDED), "of_this_file": code_version()},
        "intended_use": workspace.target(ref.model).intended_use or "not stated",
        "description_of_modifications": _description(workspace, ref, record, made_with),
        "data": _data(workspace, ref, made_with),
        "modification_protocol": _protocol(workspace, ref, record),
        "results": _results(record),
        "impact_assessment": _impact(workspace, ref, record),
        "approvals": [_approval(row) for row in record.decisions] or NOT_RECORDED,
    }


def keep_change_control(workspace: Workspace, model: str, *, at: datetime) -> str:
    """Write the evidence of a promotion into the bundle's `docs`, as JSON and as Markdown; returns their folder.

    Raises:
        UnknownName: If there is no such model.
    """
    ref = find(workspace, model)
    facts = change_control(workspace, model, at=at)
    workspace.objects.put(f"{ref.bundle_uri}/{JSON_FILE}", json.dumps(facts, indent=2).encode())
    workspace.objects.put(f"{ref.bundle_uri}/{TEXT_FILE}", as_markdown(facts).encode())
    return f"{ref.bundle_uri}/docs"


def kept_change_control(workspace: Workspace, model: str) -> dict[str, bytes]:
    """The files that a promotion has left in the bundle, by path there; empty if none has.

    Raises:
        UnknownName: If there is no such model.
    """
    uri = find(workspace, model).bundle_uri
    there = [path for path in (JSON_FILE, TEXT_FILE) if workspace.objects.exists(f"{uri}/{path}")]
    return {path: workspace.objects.get(f"{uri}/{path}") for path in there}


def as_markdown(facts: Mapping[str, Any]) -> str:
    """The same for a reader: one heading per section, one line per fact."""
    lines = [f"# Change control evidence of {facts['model']}", ""]
    for name, value in facts.items():
        if isinstance(value, dict | list):
            lines += ["", f"## {_title(name)}", "", *_lines(value)]
        elif name != "model":
            lines.append(f"- {_title(name)}: {value}")
    return "\n".join(lines) + "\n"


def _description(workspace: Workspace, ref: ModelRef, record: Record, made_with: Mapping[str, Any]) -> Facts:
    parent = next((one for one in models(workspace, ref.model) if one.name == ref.parent), None)
    return {
        "from": ref.parent or "nothing: it is the first of its line",
        "to": ref.name,
        "weights": f"trained by {ref.strategy}",
        "weights_sha256": made_with.get("weights_sha256", NOT_RECORDED),
        "network": made_with.get("network", NOT_RECORDED),
        "recipe": _changed(parent and parent.recipe, ref.recipe),
        "calibration": _changed(parent and asdict(parent.calibration), asdict(ref.calibration)),
        "why": [str(row["because"]) for row in record.decisions] or NOT_RECORDED,
        "made_at": ref.created_at.isoformat(),
    }


def _changed(before: object, after: object) -> Facts:
    return {"before": before, "after": after, "changed": before != after}


def _data(workspace: Workspace, ref: ModelRef, made_with: Mapping[str, Any]) -> Facts:
    promoted = _kept(workspace, ref, JSON_FILE) or {}
    return {
        "reference": ref.reference,
        "n_scans": _n_scans(workspace, ref),
        "table_versions": {
            "at_training": made_with.get("table_versions", NOT_RECORDED),
            "at_promotion": promoted.get("data", {}).get("table_versions", {}).get("at_writing", NOT_RECORDED),
            "at_writing": _versions(workspace),
        },
    }


def _n_scans(workspace: Workspace, ref: ModelRef) -> dict[str, int | str] | str:
    try:
        sites = read_reference(workspace, ref.bundle_uri).column("site").to_pylist()
    except BadInput:
        return NOT_RECORDED
    return {site: told_count(n) for site, n in sorted(Counter(sites).items())}


def _versions(workspace: Workspace) -> dict[str, int]:
    """The Delta version of every table that has rows."""
    return {table: version for table, version in sorted(workspace.lake.versions().items()) if version >= 0}


def _protocol(workspace: Workspace, ref: ModelRef, record: Record) -> Facts:
    policy, then = policy_of(workspace), _policy_at(record)
    rules = workspace.settings.policy.model_dump(mode="json")
    is_by_overlap = workspace.target(ref.model).task == "segmentation"
    return {
        "data_management": {"practice": PRACTICE, "split": workspace.settings.split.model_dump(mode="json")},
        "re_training": {
            "strategy": ref.strategy,
            "settings": {name: rules.get(name, NOT_RECORDED) for name in RACE_SETTINGS},
            "cost": dict(ref.training) if ref.training else NOT_RECORDED,
            "race": [_candidate(row) for row in record.race] or NOT_RECORDED,
        },
        "performance_evaluation": {
            "acceptance_criteria": OVERLAP_CRITERIA if is_by_overlap else CRITERIA,
            "settings": {
                name: rules.get(name, NOT_RECORDED) for name in (OVERLAP_SETTINGS if is_by_overlap else GATE_SETTINGS)
            },
        },
        "policy": {
            "at_decision": then or NOT_RECORDED,
            "now": policy.digest,
            "is_the_same": NOT_RECORDED if then is None else then == policy.digest,
        },
        "update_procedures": {
            "promotion": "compare-and-swap on the alias; then every site's serving follows, each change a row",
            "roll_back": f"sitedrift model rollback {ref.model} [--site SITE]",
        },
    }


def _policy_at(record: Record) -> str | None:
    """Digest of the policy's table when the model was decided upon."""
    found = [evidence_of(row).get("policy") for row in record.decisions]
    return next((str(one) for one in reversed(found) if one), None)


def _candidate(row: Mapping[str, Any]) -> Facts:
    names = ("strategy", "outcome", "log_loss", "log_loss_low", "log_loss_high", "seconds", "n_scan_passes", "because")
    return {name: row[name] for name in names}


def _results(record: Record) -> Facts | str:
    gate = record.gate
    if gate is None:
        return NOT_RECORDED
    named = {name: gate.get(name, NOT_RECORDED) for name in ("passed", "because", "champion", "alpha", "number")}
    return {**named, "sites": [_site_result(one) for one in gate["sites"]]}


def _site_result(verdict: Mapping[str, Any]) -> Facts:
    gains = {name: value for name, value in verdict.items() if name.endswith("_gain")}
    n = {name: told_count(verdict[name]) for name in ("n_patients", "n_positive") if name in verdict}
    told = {name: verdict.get(name, NOT_RECORDED) for name in ("site", "outcome", "because")}
    return {**told, **n, **{name: "not evaluable" if value is None else value for name, value in gains.items()}}


def _impact(workspace: Workspace, ref: ModelRef, record: Record) -> Facts:
    verdicts: Sequence[Mapping[str, Any]] = record.gate["sites"] if record.gate else ()
    asked_by = None if record.gate is None else record.gate["site"]
    return {
        "sites_that_run_it": [serving.site for serving in record.run_by],
        "no_worse_at_other_sites": {
            one["site"]: one["outcome"] in ("gains", "holds") for one in verdicts if one["site"] != asked_by
        }
        or NOT_RECORDED,
        "sites_not_evaluated": sorted({*workspace.sites} - {str(one["site"]) for one in verdicts}),
        "predecessor_kept": ref.parent or "none",
        "roll_back": f"sitedrift model rollback {ref.model} puts the former champion back at every site",
        "monitoring": "each night every site is measured against its accepted state and against the reference",
    }


def _approval(row: Mapping[str, Any]) -> Facts:
    return {
        "decision": row["decision_key"],
        "at": row["decided_at"].isoformat(),
        "site": row["site"],
        "action": row["action"],
        "status": row["status"],
        "approved_by": row["approved_by"] or NOT_RECORDED,
    }


def _kept(workspace: Workspace, ref: ModelRef, path: str) -> Facts | None:
    try:
        facts: Facts = json.loads(workspace.objects.get(f"{ref.bundle_uri}/{path}"))
    except FileNotFoundError:
        return None
    return facts


def _lines(value: object, depth: int = 0) -> list[str]:
    """A nested value as Markdown's nested lists."""
    margin = "  " * depth
    if isinstance(value, list):
        return [line for one in value for line in _item(one, depth)]
    assert isinstance(value, Mapping), "facts are mappings, lists and plain values"
    lines: list[str] = []
    for name, inner in value.items():
        if isinstance(inner, dict | list) and inner:
            lines += [f"{margin}- {_title(name)}:", *_lines(inner, depth + 1)]
        else:
            lines.append(f"{margin}- {_title(name)}: {_plain(inner)}")
    return lines


def _item(one: object, depth: int) -> list[str]:
    margin = "  " * depth
    if isinstance(one, Mapping):
        told = "; ".join(f"{_title(name).lower()} {_plain(value)}" for name, value in one.items())
        return [f"{margin}- {told}"]
    return [f"{margin}- {one}"]


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys():
        low, high = _plain(value["low"]), _plain(value["high"])
        return f"{_plain(value['value'])} [{low}, {high}]"
    return "none" if value is None or value in ([], {}) else str(value)


def _title(name: str) -> str:
    words = name.replace("_", " ")
    return name if "__" in name else words[:1].upper() + words[1:]
