"""Show the labelled reference through a shifted site's scanner, and score it as that site's scans are scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from platform_core import layout
from platform_core.errors import UnreadableScan
from platform_core.features.measure import FEATURES, measure
from platform_core.harmonize.stage import load_recipe, spread
from platform_core.harmonize.way import Recipes, Way, learn_way
from platform_core.imaging.volume import Volume
from platform_core.learn.predict import network_of
from platform_core.learn.registry import find
from platform_core.manifest.labels import read_labels
from platform_core.manifest.schemas import TRANSPORTED
from platform_core.manifest.serving import Serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import in_order_of_arrival, series_rows
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest, number_of
from platform_core.settings import ShiftSettings
from platform_core.shift.diagnosis import diagnose
from platform_core.shift.evidence import Evidence, compared, evidence_of
from platform_core.shift.inputs import Inputs, Reference, material_of, read_inputs
from platform_core.shift.material import Material
from platform_core.shift.questions import Questions
from platform_core.shift.stage import Finding, findings
from platform_core.storage.tables import rows_of
from platform_core.trial.walk import See

N_LEARN = 40
"""Scans of either side that the scanners' difference is learned from, at most."""
MOVED = ("covariate_acquisition", "mixed")
"""Verdicts after which scores say nothing of prevalence unless the reference is seen through the same scanner."""
NO_TRANSPORT = "no_transport"
VERSION = 1
"""Grows when the same inputs give other rows: it is part of a transport's name."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What became of one stratum of a site."""

    stratum: str
    transport: str
    n_shown: int
    n_refused: int
    """Scans that could not be shown; each has a row with its reason."""

    @property
    def sentence(self) -> str:
        """For the log."""
        if not self.n_shown:
            return f"{self.stratum}: the reference cannot be shown through the site's scanner"
        refused = f", {self.n_refused} could not be" if self.n_refused else ""
        return f"{self.stratum}: {self.n_shown} labelled scans of the reference shown by the site's scanner{refused}"


def show_reference(workspace: Workspace, site: str, target: str, *, run: str) -> list[Shown]:
    """Show the reference through the scanner of every stratum of a site's latest period whose acquisition moved.

    Learned from the 100, 200, 400, ... patients of the period that came first (`min_scans` doubled): so a night costs
    nothing while no doubling is reached. The reference's labelled, held-out patients are shown, at most
    `n_transported`: of the others the network knows the labels. Equal inputs make equal rows, which are not written
    again.

    Args:
        workspace: Where everything is read and written.
        site: The site.
        target: The task.
        run: The run that asks.

    Returns:
        What was written now, one per stratum.

    Raises:
        UnknownName: If there is no such target.
    """
    workspace.target(target)
    found = findings(workspace, site)
    each = (_show(inputs, found, run) for inputs in read_inputs(workspace, site, target))
    return [shown for shown in each if shown is not None]


def show_again(inputs: Inputs) -> Iterator[tuple[int, Volume]]:
    """Labels, 1 or 0, and volumes of the reference as the site's scanner shows them, for other networks to see.

    The same scans with the same noise as `show_reference` shows; none where it has not shown these inputs.
    """
    if inputs.serving is None or inputs.reference is None or inputs.transported is None:
        return
    bench = _Bench(inputs=inputs, serving=inputs.serving, reference=inputs.reference)
    way = bench.learn()
    if way is None:
        return
    for row in bench.to_show:
        try:
            volume = inputs.workspace.read_volume(str(row["volume_uri"])).first()
            yield bench.y[row["series_key"]], way.show(volume, seed=seed_of(str(row["series_key"])))
        except (UnreadableScan, FileNotFoundError):
            continue


def _show(inputs: Inputs, found: Sequence[Finding], run: str) -> Shown | None:
    if inputs.serving is None or inputs.reference is None or inputs.is_reference:
        return None
    bench = _Bench(inputs=inputs, serving=inputs.serving, reference=inputs.reference)
    if not bench.can_be_shown or bench.is_known or not _has_moved(inputs, found):
        return None
    rows = [bench.facts | {"run": run} | row for row in _rows(bench)]
    inputs.workspace.lake.append(
        layout.TRANSPORTED, rows_of(_schema(), rows), transaction=f"transported/{bench.transport}"
    )
    n_shown = sum(row["reason"] is None for row in rows)
    return Shown(
        stratum=inputs.current.stratum,
        transport=bench.transport,
        n_shown=n_shown,
        n_refused=len(rows) - n_shown,
    )


def _has_moved(inputs: Inputs, found: Sequence[Finding]) -> bool:
    """As the finding says, if there is one of these inputs; else as it would.

    Most nights have new scans and no finding of them, and nothing has moved. So all that a verdict needs is worked out
    only where the stratum's last one was of acquisition, or its features, held against the others by themselves and at
    the laxest level that a verdict could give them, moved.
    """
    mine = [each for each in found if (each.stratum, each.target) == (inputs.current.stratum, inputs.target)]
    known = [each.kind for each in mine if each.finding_key == inputs.key]
    if known:
        return known[0] in MOVED
    last = max(mine, key=lambda each: (each.period_start, each.run), default=None)
    material, settings = material_of(inputs), inputs.workspace.settings.shift
    if (last is None or last.kind not in MOVED) and not _may_have_moved(material, settings):
        return False
    return diagnose(evidence_of(material, ("ks",)), settings).kind in MOVED


def _may_have_moved(material: Material, settings: ShiftSettings) -> bool:
    """False only where no diagnosis would find that acquisition moved: without scores and labels it keeps all alpha."""
    before, after = material.sides or (None, None)
    features = Evidence(
        n=len(material.current),
        n_accepted=len(material.accepted),
        n_strata=material.n_strata,
        is_accepted=False,
        banks=material.banks,
        protocol=material.protocol,
        since_accepted=compared(before, after, ("ks",)),
    )
    return Questions(features, settings).furthest("acquisition") is not None


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """One stratum and period of a site: the scans of either side, and a name for what comes of them."""

    inputs: Inputs
    serving: Serving
    reference: Reference

    @property
    def can_be_shown(self) -> bool:
        shift = self.inputs.workspace.settings.shift
        return bool(shift.n_transported and self.inputs.current.n >= shift.min_scans and self.to_show)

    @cached_property
    def site_rows(self) -> list[Row]:
        """The patients that are learned from, of those of the period that came first."""
        workspace, site = self.inputs.workspace, self.inputs.current.site
        first = in_order_of_arrival(workspace, site, self.inputs.current.keys)[: self.n_site]
        rows = {row["series_key"]: row for row in series_rows(workspace, site, first)}
        return spread([rows[key] for key in first], N_LEARN)

    @property
    def n_site(self) -> int:
        """The greatest of min_scans, twice that, four times that, ... patients that the period has."""
        least = self.inputs.workspace.settings.shift.min_scans
        return int(least * 2 ** max((self.inputs.current.n // least).bit_length() - 1, 0))

    @cached_property
    def reference_rows(self) -> list[Row]:
        like = self.inputs.like_reference
        return [] if like is None else series_rows(self.inputs.workspace, self.reference.site, like.keys)

    @cached_property
    def y(self) -> dict[str, int]:
        return read_labels(self.inputs.workspace, self.serving.target, self.reference.site)

    @cached_property
    def to_show(self) -> list[Row]:
        settings = self.inputs.workspace.settings
        held_out = [
            row
            for row in self.reference_rows
            if row["series_key"] in self.y and part_of(row["patient_key"], settings.split) == "evaluation"
        ]
        return spread(held_out, settings.shift.n_transported)

    @cached_property
    def transport(self) -> str:
        return digest(
            {
                "version": VERSION,
                "site": self.inputs.current.site,
                "stratum": self.inputs.current.stratum,
                "period": self.inputs.current.period_start.isoformat(),
                "target": self.serving.target,
                "model": self.serving.model,
                "recipes": [self.serving.recipe, self.reference.recipe],
                "site_rows": _revisions(self.site_rows),
                "learned_from": _revisions(spread(self.reference_rows, N_LEARN)),
                "shown": [[*row, self.y[str(row[0])]] for row in _revisions(self.to_show)],
            }
        )

    @property
    def is_known(self) -> bool:
        where = (ds.field("site") == self.inputs.current.site) & (ds.field("transport") == self.transport)
        return bool(self.inputs.workspace.lake.read(layout.TRANSPORTED, where, ["transport"]).num_rows)

    @property
    def facts(self) -> Row:
        """The columns that all rows share."""
        return {
            "site": self.inputs.current.site,
            "stratum": self.inputs.current.stratum,
            "period_start": self.inputs.current.period_start,
            "target": self.serving.target,
            "model": self.serving.model,
            "recipe": self.serving.recipe,
            "transport": self.transport,
            "n_site": self.n_site,
            "reference_site": self.reference.site,
        }

    @cached_property
    def recipes(self) -> Recipes:
        workspace = self.inputs.workspace
        return Recipes(
            ours=load_recipe(workspace, self.serving.recipe),
            there=load_recipe(workspace, self.reference.recipe),
            modality=workspace.target(self.serving.target).modality,
        )

    @cached_property
    def see(self) -> See:
        return network_of(self.inputs.workspace, find(self.inputs.workspace, self.serving.model))

    def learn(self) -> Way | None:
        if self.recipes.ours.recipe != self.recipes.there.recipe:
            return None
        there, here = (
            _volumes(self.inputs.workspace, rows) for rows in (spread(self.reference_rows, N_LEARN), self.site_rows)
        )
        return learn_way(self.recipes, there, here)


def _rows(bench: _Bench) -> Iterator[Row]:
    """One row per scan to be shown; a single one without a series if the transport cannot be learned."""
    way = bench.learn()
    if way is None:
        yield {"reason": NO_TRANSPORT}
        return
    learned = {
        "blur_mm2": way.transport.blur_mm2,
        "blur_se_mm2": way.transport.blur_se_mm2,
        "worst": way.transport.worst,
    }
    for row in bench.to_show:
        named = {name: row[name] for name in ("series_key", "revision")} | {"y": float(bench.y[row["series_key"]])}
        yield learned | named | _shown(bench, row, way)


def _shown(bench: _Bench, row: Row, way: Way) -> Row:
    """Score and features of one scan, or the reason why there are none."""
    try:
        volume = bench.inputs.workspace.read_volume(str(row["volume_uri"])).first()
        made = way.show(volume, seed=seed_of(str(row["series_key"])))
        score, _ = bench.see(made)
        return {"score": score, "reason": None} | measure(made, bench.recipes.modality)
    except UnreadableScan as error:
        return {"reason": error.reason}
    except FileNotFoundError:
        return {"reason": "volume_missing"}


def seed_of(series_key: str) -> int:
    """The seed of a scan's noise: the same scan gets the same noise again."""
    return number_of(f"transport/{series_key}")


def _volumes(workspace: Workspace, rows: Sequence[Row]) -> Iterator[Volume]:
    """Native volumes that can be read, one at a time."""
    for row in rows:
        try:
            yield workspace.read_volume(str(row["volume_uri"])).first()
        except (UnreadableScan, FileNotFoundError):
            continue


def _revisions(rows: Sequence[Row]) -> list[list[object]]:
    return [[row["series_key"], row["revision"]] for row in rows]


def _schema() -> pa.Schema:
    columns = [
        pa.field(feature.name, pa.float64(), metadata={"description": f"{feature.meaning} [{feature.unit}]"})
        for feature in FEATURES.values()
    ]
    return pa.schema([*TRANSPORTED, *columns], metadata=TRANSPORTED.metadata)
