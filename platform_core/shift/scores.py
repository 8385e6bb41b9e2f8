"""Scans with a model's score, and with their label where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.labels import labels_in_force
from platform_core.manifest.serving import serving_history
from platform_core.manifest.splits import Part, part_of
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.settings import SplitSettings
from platform_core.shift.risk import Reals

HERE = "platform_core.shift"
YesNo = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ScoredScans:
    """One row per scan of one site, model and recipe, in key order."""

    series_key: npt.NDArray[np.str_]
    patient_key: npt.NDArray[np.str_]
    patient_known: YesNo
    y: Reals
    """1 positive, 0 negative, NaN without a label."""
    score: Reals
    """Logit of the positive class before calibration."""
    embedding: Reals
    """(scans, dimensions); no dimensions if any scan lacks one."""
    chance: Reals | None = None
    """With which each was chosen to be labelled, (0, 1], NaN where not stated; None: nowhere."""

    def __len__(self) -> int:
        return len(self.series_key)

    @property
    def is_labelled(self) -> YesNo:
        """Where `y` is known."""
        return np.isfinite(self.y)

    @property
    def weight(self) -> Reals:
        """What each labelled scan counts in a mean over its site: one over its chance of being labelled.

        A label whose chance is not stated stands for its own scan alone: requests are drawn among the others.

        Source:
            Horvitz & Thompson 1952, doi:10.1080/01621459.1952.10483446; a mean divides by the sum of the weights
            (Hajek 1971; Sarndal et al. 1992, doi:10.1007/978-1-4612-4378-6, section 5.7).
        """
        chance = np.ones(len(self)) if self.chance is None else self.chance
        return np.where(np.isfinite(chance), 1 / chance, 1.0)

    def where(self, chosen: YesNo) -> "ScoredScans":
        """The rows that are chosen."""
        return ScoredScans(
            self.series_key[chosen],
            self.patient_key[chosen],
            self.patient_known[chosen],
            self.y[chosen],
            self.score[chosen],
            self.embedding[chosen],
            None if self.chance is None else self.chance[chosen],
        )

    def of_part(self, part: Part, split: SplitSettings) -> "ScoredScans":
        """The rows of patients who belong to the part."""
        return self.where(np.array([part_of(str(key), split) == part for key in self.patient_key], dtype=bool))

    @property
    def facts(self) -> list[list[object]]:
        """Series, labels and scores: what a result from these scans depends on; null without a label."""
        labels = [None if np.isnan(y) else y for y in self.y.tolist()]
        return [list(row) for row in zip(self.series_key.tolist(), labels, self.score.tolist(), strict=True)]


def score_rows(
    workspace: Workspace,
    site: str,
    target: str,
    model: str,
    recipe: str,
    *,
    keys: Sequence[str] | None = None,
    part: Part | None = None,
) -> ScoredScans:
    """Scans that a model has scored, labelled or not.

    Args:
        workspace: Where they are read.
        site: Whose scans.
        target: The task; its classes say which label is positive.
        model: `model@version`.
        recipe: The recipe whose volumes the model saw.
        keys: Only these series; None for all.
        part: Only patients of this part; None for all.

    Raises:
        UnknownName: If there is no such target.
    """
    classes = workspace.target(target).classes
    with workspace.lake.connect([layout.SERIES, layout.PREDICTION]) as db:
        db.register("label_in_force", labels_in_force(workspace, target))
        rows = load(HERE, "scored_series").run(db, site=site, target=target, model=model, recipe=recipe)
    scans = _arrays(rows, classes)
    if keys is not None:
        scans = scans.where(np.isin(scans.series_key, np.asarray(keys, dtype=np.str_)))
    return scans if part is None else scans.of_part(part, workspace.settings.split)


def label_and_score_rows(
    workspace: Workspace,
    site: str,
    target: str,
    model: str,
    recipe: str,
    *,
    keys: Sequence[str] | None = None,
    part: Part | None = None,
) -> ScoredScans:
    """As `score_rows`, only scans with a label of either class."""
    scans = score_rows(workspace, site, target, model, recipe, keys=keys, part=part)
    return scans.where(scans.is_labelled)


def has_learned_at(workspace: Workspace, site: str, model: str) -> bool:
    """Whether `model@version` may know patients of a site: its source, or one that it was trained again for."""
    sources = [name for name, target in workspace.settings.target.items() if target.source_site == site]
    if any(model == serving.model for name in sources for serving in serving_history(workspace, site, name)):
        return True
    name, _, version = model.rpartition("@")
    rows = workspace.lake.read(layout.MODEL, pc.field("model") == name, ["version", "parent"]).to_pylist()
    return any(row["parent"] is not None for row in rows if str(row["version"]) == version)


def _arrays(rows: pa.Table, classes: tuple[str, str]) -> ScoredScans:
    meaning = {classes[0]: 0.0, classes[1]: 1.0}
    return ScoredScans(
        series_key=np.asarray(rows.column("series_key").to_pylist(), dtype=np.str_),
        patient_key=np.asarray(rows.column("patient_key").to_pylist(), dtype=np.str_),
        patient_known=np.asarray(rows.column("patient_known").to_pylist(), dtype=bool),
        y=np.array([meaning.get(label, np.nan) for label in rows.column("label").to_pylist()], dtype=np.float64),
        score=np.asarray(rows.column("score").to_pylist(), dtype=np.float64),
        embedding=_matrix(rows.column("embedding").to_pylist()),
        chance=np.asarray(rows.column("chance").to_numpy(zero_copy_only=False), dtype=np.float64),
    )


def _matrix(rows: list[list[float] | None]) -> Reals:
    """Rows of one length as (rows, dimensions); no dimensions if a row is missing or of another length."""
    lengths = {len(row or ()) for row in rows}
    if len(lengths) != 1:
        return np.empty((len(rows), 0))
    return np.asarray([row or () for row in rows], dtype=np.float64).reshape(len(rows), -1)
