"""The model card: what a version is for, what it was made from, how it was judged, and what nobody knows of it."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from platform_core import layout
from platform_core.manifest.serving import Calibration
from platform_core.manifest.workspace import Workspace
from platform_core.report.card_facts import Bin, Card, card_of
from platform_core.report.page import render, write_page
from platform_core.report.races import race_of
from platform_core.report.spelling import number
from platform_core.shift.risk import Estimate
from platform_core.trial.evaluation import POOLED, Evaluation
from platform_core.trial.model_record import FEWEST_TOLD, told_count

README = "docs/README.md"
"""In a bundle; named here too, because what writes it first loads torch."""
SIDE_PX, MARGIN_PX = 300, 44
"""Of the calibration plot: its square, and room for axis labels left and below."""
MEASURES = (
    ("AUROC", "auroc", "higher is better"),
    ("Balanced accuracy", "balanced_accuracy", "at the served threshold"),
    ("Sensitivity", "sensitivity", "at the served threshold"),
    ("Specificity", "specificity", "at the served threshold"),
    ("Sensitivity at fixed specificity", "sensitivity_at_specificity", "threshold chosen here"),
    ("Brier score", "brier", "lower is better"),
    ("Calibration error", "calibration_error", "lower is better"),
    ("Log-loss", "log_loss", "nats per scan"),
)
"""Of an `Evaluation`: title, name, and how it is read."""


def measures_of(evaluated: Sequence[Evaluation]) -> tuple[tuple[str, str, str], ...]:
    """What the card tells: of a segmentation Dice alone."""
    is_marked = any(one.dice is not None for one in evaluated)
    return (("Dice", "dice", "overlap with what readers drew, higher is better"),) if is_marked else MEASURES


def write_card(workspace: Workspace, model: str, *, at: datetime) -> str:
    """Write the card of `model@version` as a page, and as the README of its bundle; returns the page's path.

    Raises:
        UnknownName: If there is no such model.
    """
    card = card_of(workspace, model)
    shown = _shown(workspace, card)
    workspace.objects.put(f"{card.ref.bundle_uri}/{README}", render("card.md.j2", **shown).encode())
    path = layout.report_path(f"model-{card.ref.model}-{card.ref.version}")
    return write_page(workspace, path, "card.html.j2", at=at, **shown)


def card_html(workspace: Workspace, model: str, *, at: datetime) -> str:
    """The same page as text.

    Raises:
        UnknownName: If there is no such model.
    """
    return render("card.html.j2", at=at, **_shown(workspace, card_of(workspace, model)))


def card_markdown(workspace: Workspace, model: str) -> str:
    """The card as Markdown, without the time of writing: equal facts give equal text.

    Raises:
        UnknownName: If there is no such model.
    """
    return render("card.md.j2", **_shown(workspace, card_of(workspace, model)))


def _shown(workspace: Workspace, card: Card) -> dict[str, Any]:
    return {
        "name": workspace.settings.name,
        "card": card,
        "measures": measures_of(card.evaluated),
        "fewest": FEWEST_TOLD,
        "told": told_count,
        "months": months,
        "gate_gain": gate_gain,
        "metric": metric,
        "evaluated_count": evaluated_count,
        "specificity": workspace.settings.policy.specificity,
        "fitted": fitted,
        "runs_it": {serving.site: serving.calibration for serving in card.record.run_by},
        "side": SIDE_PX,
        "margin": MARGIN_PX,
        "points": points(card.bins),
        "raced": race_of(card.record.race, task=card.target.task) if card.record.race else None,
    }


def months(first: date, last: date) -> str:
    """`March 2024`, or `March 2024 to May 2025`."""
    spelt = [f"{day:%B %Y}" for day in (first, last)]
    return " to ".join(dict.fromkeys(spelt))


def fitted(calibration: Calibration) -> str:
    """What a site's labels have made of its scores; nothing where they come as they are."""
    if calibration.scale == 1:
        return ""
    return f", scale {number(calibration.scale)}, offset {number(calibration.logit_offset)}"


def metric(evaluation: Evaluation, name: str) -> Estimate | None:
    """One measure of a site; None where it was not evaluable, or the site has too few patients to tell of."""
    found: Estimate | None = getattr(evaluation, name)
    return found if evaluation.n_patients >= FEWEST_TOLD else None


def evaluated_count(evaluated: Sequence[Evaluation], one: Evaluation, name: str) -> int | str:
    """`n_patients` or `n_positive` of a site; of all sites only as much as does not give a small one away."""
    few = [site for site in evaluated if site.n_patients < FEWEST_TOLD]
    if one in few:
        return told_count(1)
    if one.site == POOLED and few:
        told = sum(getattr(site, name) for site in evaluated if site not in few and site.site != POOLED)
        return f"at least {told}"
    return told_count(getattr(one, name))


def gate_gain(verdict: Mapping[str, Any], name: str) -> Estimate | None:
    """One gain of a site's verdict as a gate recorded it; None where it was not evaluable or is not on record."""
    found = verdict.get(name)
    if not found or None in (found["value"], found["low"], found["high"]):
        return None
    return Estimate(found["value"], found["low"], found["high"])


def points(bins: Sequence[Bin]) -> list[dict[str, float]]:
    """Where the marks of the calibration plot lie, in pixels from the upper left corner."""

    def x(value: float) -> float:
        return round(MARGIN_PX + SIDE_PX * value, 1)

    def y(value: float) -> float:
        return round(SIDE_PX * (1 - value) + 8, 1)

    return [{"x": x(b.foretold), "y": y(b.found.value), "low": y(b.found.low), "high": y(b.found.high)} for b in bins]
