"""What a site runs: model, recipe and calibration. Append-only, compare-and-swap, reversible."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.manifest.schemas import SERVING
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

Reals = npt.NDArray[np.float64]

SAME_LOGIT = 1e-9
"""Offsets that are nearer than this differ by rounding alone."""


def log_odds(share: float) -> float:
    """ln(share / (1 - share))."""
    return float(np.log(share) - np.log1p(-share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How a score becomes a decision: probability = sigmoid(scale x score + offset), positive from `threshold` on."""

    logit_offset: float
    prevalence: float
    """Share of positives that the offset assumes."""
    threshold: float
    scale: float = 1.0
    """How far scores are believed at this site: 1 as they come, towards 0 not at all; only its labels move it."""

    @property
    def spelt(self) -> str:
        """`prevalence 0.31`; with scale and offset where these say more than the prevalence does."""
        told = f"prevalence {self.prevalence:.3g}"
        if self.scale == 1 and abs(self.logit_offset - log_odds(self.prevalence)) < SAME_LOGIT:
            return told
        return f"{told}, scale {self.scale:.2f}, offset {self.logit_offset:.2f}"

    def probability(self, score: Reals) -> Reals:
        """Calibrated probability of the positive class, in (0, 1), of raw scores (logits)."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.scale * score + self.logit_offset))), dtype=np.float64)

    def score_at(self, probability: float) -> float:
        """The score that has a probability in (0, 1)."""
        return (log_odds(probability) - self.logit_offset) / self.scale

    def moved_to(self, prevalence: float) -> "Calibration":
        """The same model under another prevalence; no weight moves.

        Source: Saerens et al. 2002, doi:10.1162/089976602753284446, equation 2.4.
        """
        shift = log_odds(prevalence) - log_odds(self.prevalence)
        return replace(self, logit_offset=self.logit_offset + shift, prevalence=prevalence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What one site runs for one target."""

    site: str
    target: str
    model: str
    recipe: str
    calibration: Calibration
    epoch: int = 0
    until: datetime | None = None
    """When it ends by itself, UTC; None: never. What changed without labels ends, unless quiet periods renew it."""

    def to_json(self) -> str:
        """The serving as decisions record it."""
        return json.dumps(asdict(self) | {"until": self.until and self.until.isoformat()}, sort_keys=True)

    def runs_as(self, other: "Serving") -> bool:
        """Whether both give every scan the same answer; a renewal of its time makes no other serving."""
        mine, theirs = ((each.model, each.recipe, each.calibration) for each in (self, other))
        return mine == theirs


def current_serving(workspace: Workspace, site: str, target: str) -> Serving | None:
    """The serving in force; None before the first."""
    history = serving_history(workspace, site, target)
    return history[-1] if history else None


def current_servings(workspace: Workspace, target: str) -> list[Serving]:
    """The serving in force of every site that has one, in site order."""
    found = [current_serving(workspace, site, target) for site in workspace.sites]
    return [serving for serving in found if serving is not None]


def serving_history(workspace: Workspace, site: str, target: str) -> list[Serving]:
    """Every serving of the site for the target, oldest first."""
    where = (pc.field("site") == site) & (pc.field("target") == target)
    rows = workspace.lake.read(layout.SERVING, where).to_pylist()
    return [_serving(row) for row in sorted(rows, key=lambda row: row["epoch"])]


def serving_since(workspace: Workspace, serving: Serving) -> datetime:
    """The moment from which a serving has held, UTC."""
    where = (pc.field("site") == serving.site) & (pc.field("target") == serving.target)
    rows = workspace.lake.read(layout.SERVING, where & (pc.field("epoch") == serving.epoch), ["since"])
    since: datetime = rows.column("since")[0].as_py()
    return since


def change_serving(workspace: Workspace, new: Serving, *, decision_key: str | None, at: datetime, run: str) -> Serving:
    """Put a new serving in force, if nobody else has changed it since `new.epoch` was read.

    Args:
        workspace: Where it counts.
        new: The wanted serving; its `epoch` is the one of the serving that it replaces (-1 for the first).
        decision_key: The decision behind it.
        at: The moment from which it holds, UTC.
        run: The run that changes it.

    Raises:
        BadRequest: If another change came between.
    """
    present = current_serving(workspace, new.site, new.target)
    epoch = -1 if present is None else present.epoch
    if epoch != new.epoch:
        raise BadRequest(f"{new.site}: the serving of {new.target} changed meanwhile; look again and repeat")
    row = {
        "site": new.site,
        "target": new.target,
        "since": at,
        "epoch": epoch + 1,
        "model": new.model,
        "recipe": new.recipe,
        "calibration": json.dumps(asdict(new.calibration)),
        "until": new.until,
        "decision_key": decision_key,
        "run": run,
    }
    transaction = f"serving/{new.site}/{new.target}/{epoch + 1}"
    written = workspace.lake.append(layout.SERVING, rows_of(SERVING, [row]), transaction=transaction)
    if not written:
        raise BadRequest(f"{new.site}: the serving of {new.target} changed meanwhile; look again and repeat")
    return _serving(row)


def _serving(row: dict[str, object]) -> Serving:
    calibration = Calibration(**json.loads(str(row["calibration"])))
    named = {name: row[name] for name in ("site", "target", "model", "recipe", "epoch")}
    return Serving(calibration=calibration, until=row.get("until"), **named)  # type: ignore[arg-type]
