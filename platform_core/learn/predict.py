"""Score and embed the scans of a shard by one model: rows of `core__prediction`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from platform_core import layout
from platform_core.imaging.volume import Volume
from platform_core.learn.bundle import Bundle, read_bundle
from platform_core.learn.data import Loaded, find_scans, frame, load_scans
from platform_core.learn.embedding import answers
from platform_core.learn.registry import ModelRef, find
from platform_core.manifest.schemas import PREDICTION
from platform_core.manifest.stages import StageCount, Verdict, pending, record_stage, series_rows, transaction
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

STAGE = "predict"
Reals = npt.NDArray[np.float64]


def predict_shard(
    workspace: Workspace, site: str, keys: Sequence[str], *, target: str, model: str, recipe: str, run: str
) -> StageCount:
    """Predict every named series that has no answer yet for this recipe and model.

    Args:
        workspace: Where volumes and models live.
        site: The site.
        keys: Series of the shard.
        target: The task.
        model: `model@version`.
        recipe: Recipe of the volumes.
        run: The run that predicts.

    Returns:
        What became of those that were pending: predicted, or refused with `no_volume`, `volume_missing`,
        `wrong_dimensions`, `not_finite`, `other_modality` or what the decoder says.

    Raises:
        UnknownName: If there is no such target or model.
        BadInput: If a file of the model is missing or was changed.
    """
    settings = workspace.target(target)
    bundle = read_bundle(workspace, find(workspace, model).bundle_uri)
    owed = sorted(set(keys) & set(pending(workspace, site, STAGE, recipe=recipe, model=model)))
    scans = find_scans(workspace, target, site, recipe, keys=owed)
    loaded = load_scans(workspace, scans, settings, bundle.framing)
    names = {"site": site, "recipe": recipe, "model": model, "target": target, "run": run}
    rows = [names | facts for facts in _predictions(bundle, loaded)]
    predicted = {row["series_key"] for row in rows}
    revisions = [(row["series_key"], row["revision"]) for row in series_rows(workspace, site, owed)]
    workspace.lake.append(
        layout.PREDICTION,
        rows_of(PREDICTION, rows),
        transaction=transaction(
            STAGE, site, recipe, model, target, [pair for pair in revisions if pair[0] in predicted]
        ),
    )
    verdicts = [
        Verdict(series_key=key, revision=n, reason=None if key in predicted else loaded.refused.get(key, "no_volume"))
        for key, n in revisions
    ]
    return record_stage(workspace, site, STAGE, verdicts, run=run, recipe=recipe, model=model)


def network_of(workspace: Workspace, model: ModelRef) -> Callable[[Volume], tuple[float, Reals]]:
    """A version as a function of one harmonized volume: its score (logit before calibration) and embedding.

    The function raises `UnreadableScan` for a volume that the network does not take.
    """
    bundle = read_bundle(workspace, model.bundle_uri)

    def see(volume: Volume) -> tuple[float, Reals]:
        scores, embeddings = scores_and_embeddings(bundle, frame(volume, bundle.framing)[None, None])
        return float(scores[0]), embeddings[0]

    return see


def scores_and_embeddings(bundle: Bundle, arrays: npt.NDArray[np.float32]) -> tuple[Reals, Reals]:
    """Scores (n,) before a site's calibration, and embeddings (n, channels), of framed scans (n, 1, ...).

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    logits, embeddings = answers(bundle.network, torch.from_numpy(arrays))
    scores = bundle.platt.score(np.asarray(logits.numpy(), dtype=np.float64))
    return scores, np.asarray(embeddings.numpy(), dtype=np.float64)


def _predictions(bundle: Bundle, loaded: Loaded) -> list[dict[str, Any]]:
    if not loaded.scans:
        return []
    scores, embeddings = scores_and_embeddings(bundle, loaded.arrays)
    positive = 1 / (1 + np.exp(-scores))
    return [
        {
            "series_key": scan.series_key,
            "revision": scan.revision,
            "score": float(score),
            "probability": [float(1 - p), float(p)],
            "embedding": embedding,
        }
        for scan, score, p, embedding in zip(loaded.scans, scores, positive, embeddings, strict=True)
    ]
