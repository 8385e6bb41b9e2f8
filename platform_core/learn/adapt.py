"""A network that was adapted to one site without labels, as a version of its model.

It bears the alias `adapted` and no other: it is for one site, and never a champion. Its score is made from its logit
as its parent's is. That the score is still a log likelihood ratio is an assumption, which holds as far as the
adaptation has undone what the scanner did: what a blur has taken away it cannot bring back, and then scores are surer
than they should be. No label says so; the gate's fit of the scores is all that can.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from platform_core import layout
from platform_core.learn.bundle import Bundle, describe, write_bundle
from platform_core.learn.data import Scan
from platform_core.learn.networks import Classifier
from platform_core.learn.registry import ModelRef, next_epoch, next_version, register
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest


def register_adapted(
    workspace: Workspace,
    parent: ModelRef,
    bundle: Bundle,
    network: Classifier,
    *,
    adaptation: str,
    recipe: str,
    scans: Sequence[Scan],
    run: str,
    at: datetime,
) -> ModelRef:
    """Store and register an adapted network.

    Args:
        workspace: Where models live.
        parent: The champion that it was made of.
        bundle: The parent's.
        network: The adapted one.
        adaptation: Its name, the version's strategy.
        recipe: By which the site's scans were made.
        scans: Whose statistics are in it, of the site and the reference; with the parent's they make its list, so that
            a withdrawal finds them.
        run: The run that adapts.
        at: The moment, UTC.

    Raises:
        BadRequest: If another event of the model came between.
    """
    reference = _with_scans(bundle.reference, scans)
    epoch = next_epoch(workspace, parent.model)  # first: an event that comes between makes it stale
    version = next_version(workspace, parent.model)
    made = ModelRef(
        model=parent.model,
        version=version,
        alias="adapted",
        parent=parent.name,
        strategy=adaptation,
        reference=digest(reference.to_pylist()),
        recipe=recipe,
        metrics={},
        calibration=parent.calibration,
        bundle_uri=write_bundle(
            workspace,
            replace(bundle, network=network, reference=reference),
            layout.model_path(parent.model, version),
        ),
        created_at=at,
        since=at,
        epoch=epoch,
    )
    describe(workspace, made)
    register(workspace, made, run=run)
    return made


def _with_scans(reference: pa.Table, scans: Sequence[Scan]) -> pa.Table:
    """The parent's list with these scans, each once, in order."""
    listed = {(row["site"], row["series_key"], row["revision"]) for row in reference.to_pylist()}
    listed |= {(scan.site, scan.series_key, scan.revision) for scan in scans}
    rows = [{"site": site, "series_key": key, "revision": n} for site, key, n in sorted(listed)]
    return pa.Table.from_pylist(rows, schema=reference.schema)
