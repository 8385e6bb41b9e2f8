"""The fleet page: is anything wrong, where, and what is being done about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from platform_core import layout
from platform_core.features.contract import Feature
from platform_core.manifest.serving import current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.report import charts, spelling
from platform_core.report.fleet_rows import (
    OUTCOMES,
    STATES,
    Finding,
    SiteSummary,
    Taken,
    decisions_of,
    findings_of,
    fleet_rows,
)
from platform_core.report.page import widest, write_page
from platform_core.report.races import Race, races_of
from platform_core.report.samples import Row, Shown, feature_rows, read_scores, shown_samples

HERE = "platform_core.report"
MOST_FEATURES = 4
MOST_TABLE_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePlot:
    """One feature and the name of its figure."""

    figure: str
    feature: str
    meaning: str
    rows: Sequence[tuple[Row, Row | None]]
    """Native and harmonized, for readers without plots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """All that the page says of one site, target and stratum."""

    anchor: str
    summary: SiteSummary
    plots: Sequence[FeaturePlot]
    score_figure: str | None
    steps: Sequence[tuple[Finding, Sequence[Taken]]]
    """Every period with its decisions, oldest first."""
    statistics: Sequence[Mapping[str, Any]]
    races: Sequence[Race]
    """The latest first."""


def write_fleet_report(workspace: Workspace, *, at: datetime) -> str:
    """Write the fleet page; returns its path in the workspace.

    Args:
        workspace: What it is about, and where it is written.
        at: The moment that the page states, UTC.
    """
    rows = sorted(fleet_rows(workspace), key=lambda row: STATES.index(row.state))
    figures: dict[str, str] = {}
    details = [_detail(workspace, row, number, figures) for number, row in enumerate(rows)]
    risks = [measures.log_loss for row in rows for measures in (row.before, row.after) if measures]
    return write_page(
        workspace,
        layout.report_path("fleet"),
        "fleet.html.j2",
        name=workspace.settings.name,
        at=at,
        rows=rows,
        details=details,
        headline=headline(rows),
        high=widest(risks),
        sites=list({row.site: row for row in rows}.values()),
        outcomes=OUTCOMES,
        n_table=MOST_TABLE_ROWS,
        alpha=workspace.settings.shift.alpha,
        figures={name: charts.as_script(figure) for name, figure in figures.items()},
    )


def headline(rows: Sequence[SiteSummary]) -> str:
    """The fleet in one sentence, the worst first."""
    if not rows:
        return "There are no sites yet. Add one with: sitedrift site add"
    n: Counter[str] = Counter(row.state for row in rows)
    words = {
        "needs a person": "needs a person|need a person",
        "in progress": "is being worked on|are being worked on",
        "acted": "shifted and was acted upon|shifted and were acted upon",
        "undetermined": "has too few scans for a verdict|have too few scans for a verdict",
        "quiet": "is quiet|are quiet",
        "not measured": "has not been measured yet|have not been measured yet",
    }
    parts = [f"{n[state]} {text.split('|')[n[state] > 1]}" for state, text in words.items() if n[state]]
    total = spelling.plural(len(rows), "site", "sites")
    return f"Of {total}, {', '.join(parts)}." if len(rows) > 1 else f"The one site {parts[0].removeprefix('1 ')}."


def _detail(workspace: Workspace, row: SiteSummary, number: int, figures: dict[str, str]) -> Detail:
    anchor = f"site-{number}"
    finding = row.finding
    if finding is None:
        return Detail(anchor=anchor, summary=row, plots=(), score_figure=None, steps=(), statistics=(), races=())
    statistics = shift_table(workspace, row.site, finding)
    shown = shown_samples(workspace, row.site, finding)
    return Detail(
        anchor=anchor,
        summary=row,
        plots=_feature_plots(workspace, shown, statistics, anchor, figures),
        score_figure=_score_plot(workspace, row.site, finding, shown, anchor, figures),
        steps=_steps(workspace, row.site, finding),
        statistics=statistics,
        races=_races(workspace, row.site, finding),
    )


def shift_table(workspace: Workspace, site: str, finding: Finding) -> list[dict[str, Any]]:
    """One row per comparison and feature of the finding's period: every statistic, furthest first."""
    with workspace.lake.connect([layout.SHIFT]) as db:
        found = load(HERE, "shift_table").run(db, site=site, stratum=finding.stratum, period_start=finding.period_start)
    return list(found.to_pylist())


def _feature_plots(
    workspace: Workspace,
    shown: Sequence[Shown],
    statistics: Sequence[Mapping[str, Any]],
    anchor: str,
    figures: dict[str, str],
) -> list[FeaturePlot]:
    native = feature_rows(workspace, shown, is_native=True)
    harmonized = feature_rows(workspace, shown, is_native=False)
    plots = []
    for name in _furthest_acquisition(statistics, native):
        feature = _features().get(name)
        figure = f"{anchor}-{name}"
        other = harmonized.get(name, [])
        figures[figure] = charts.ridges(native[name], other, unit=_axis(name, feature))
        pairs = [(row, other[place] if other else None) for place, row in enumerate(native[name])]
        meaning = feature.meaning if feature else ""
        plots.append(FeaturePlot(figure=figure, feature=name, meaning=meaning, rows=pairs))
    return plots


def _furthest_acquisition(statistics: Sequence[Mapping[str, Any]], native: Mapping[str, Sequence[Row]]) -> list[str]:
    """Acquisition features that have scans in the latest period, those that moved furthest first."""
    known = _features()
    measured = [name for name, rows in native.items() if rows[-1].n and _varies(rows)]
    usable = [name for name in measured if name not in known or known[name].bank == "acquisition"]
    distance = {row["feature"]: row["ks"] or 0.0 for row in reversed(statistics) if row["recipe"] == layout.NATIVE}
    return sorted(usable, key=lambda name: (-distance.get(name, 0.0), name))[:MOST_FEATURES]


def _axis(name: str, feature: Feature | None) -> str:
    if feature is None:
        return name
    return "" if feature.unit == "1" else feature.unit


def _varies(rows: Sequence[Row]) -> bool:
    """False for what every scan shares, such as a fixed spacing: there is nothing to draw."""
    known = [row.values for row in rows if row.n]
    return max(float(values.max()) for values in known) > min(float(values.min()) for values in known)


def _features() -> dict[str, Feature]:
    from platform_core.features.measure import FEATURES

    return FEATURES


def _score_plot(
    workspace: Workspace, site: str, finding: Finding, shown: Sequence[Shown], anchor: str, figures: dict[str, str]
) -> str | None:
    found = read_scores(workspace, shown, finding)
    if finding.target is None or not any(row.n for row in found.rows):
        return None
    serving = current_serving(workspace, site, finding.target)
    assumed = serving.calibration.prevalence if serving else None
    name = f"{anchor}-score"
    figures[name] = charts.scores(found.rows, found.prevalences, assumed=assumed)
    return name


def _steps(workspace: Workspace, site: str, finding: Finding) -> list[tuple[Finding, Sequence[Taken]]]:
    scope = (finding.target, finding.stratum)
    taken = decisions_of(workspace, site)
    return [
        (one, [t for t in taken if (t.target, t.stratum, t.period_start) == (*scope, one.period_start)])
        for one in findings_of(workspace, site)
        if (one.target, one.stratum) == scope
    ]


def _races(workspace: Workspace, site: str, finding: Finding) -> list[Race]:
    scope = (finding.target, finding.stratum)
    return [race for race in races_of(workspace, site) if (race.target, race.stratum) == scope]
