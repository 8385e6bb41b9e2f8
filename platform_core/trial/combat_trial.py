"""What ComBat would do to a site's features: the site as one that the fit has never seen, and how far it lies."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from platform_core import layout
from platform_core.harmonize.combat import Combat, fit_combat
from platform_core.manifest.schemas import FITTED_RECIPE
from platform_core.manifest.stages import series_rows, transaction
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.risk import Estimate, Reals
from platform_core.storage.tables import rows_of
from platform_core.trial.first_features import columns_of, features_of, first_of_each_patient
from platform_core.trial.recipe_trial import RecipeTrial
from platform_core.trial.steps import FAR, MIN_PATIENTS, receipt_of_features

FEWEST_SITES = 2
"""Known sites without whom nobody can say how sites lie about each other."""


def try_combat(
    workspace: Workspace, site: str, target: str, sound: Mapping[str, Sequence[str]], *, run: str, at: datetime
) -> RecipeTrial | None:
    """Fit ComBat to all other sites' native features, and take the site through it as one that was never seen.

    What the site is like is learned on every second patient and judged on the others. The parameters are kept in
    `core__recipe`, as those of any harmonizer; no volume is moved by them, so no site can be served by this.

    Args:
        workspace: Where features lie.
        site: The site.
        target: The task; its source site is what the others are brought to.
        sound: Of every site, the series that passed quality, of the target's modality.
        run: The run that asks.
        at: The present moment, UTC.

    Returns:
        One receipt; None where fewer than two other sites have enough patients of the site's stratum.
    """
    source = workspace.target(target).source_site
    stratum, scans = _first_scans(workspace, site, sound[site], None)
    others = {name: _first_scans(workspace, name, keys, stratum)[1] for name, keys in sound.items() if name != site}
    known = {name: rows for name, rows in others.items() if len(rows) >= MIN_PATIENTS}
    if source not in known or len(known) < FEWEST_SITES or len(scans) < 2 * MIN_PATIENTS:
        return None
    names, tables = _shared_features(workspace, {site: scans, **known})
    combat = fit_combat(*_stacked({name: tables[name] for name in known}), reference=source)
    taught, judged = tables[site][::2], tables[site][1::2]
    settled = combat.with_sites(taught, [site] * len(taught))
    moved = settled.apply(judged, [site] * len(judged)).values
    (far,) = combat.apply(taught, [site] * len(taught)).extrapolation
    receipt = receipt_of_features("combat", names, tables[source], judged, moved)
    receipt = replace(receipt, after={**receipt.after, FAR: Estimate(far.share_beyond_2, math.nan, math.nan)})
    days = [row["observed_on"] for row in scans]
    return RecipeTrial(
        run=run,
        site=site,
        recipe=_keep(workspace, site, target, settled, len(taught), run=run, at=at),
        model="",
        stratum=stratum,
        period_start=min(days),
        period_end=max(days),
        receipts=(receipt,),
    )


def _first_scans(
    workspace: Workspace, site: str, keys: Sequence[str], stratum: str | None
) -> tuple[str, list[dict[str, Any]]]:
    """The first scan of every patient in a stratum; None: the one that most of the series belong to."""
    rows = series_rows(workspace, site, keys)
    counted = Counter(sorted(row["stratum"] for row in rows))
    wanted = stratum or max(counted, key=counted.__getitem__, default="")
    return wanted, first_of_each_patient([row for row in rows if row["stratum"] == wanted])


def _shared_features(
    workspace: Workspace, scans: Mapping[str, Sequence[dict[str, Any]]]
) -> tuple[list[str], dict[str, Reals]]:
    """Native features that enough patients of every site have, by site."""
    found = {
        name: features_of(workspace, name, layout.NATIVE, [row["series_key"] for row in rows])
        for name, rows in scans.items()
    }
    shared = sorted(set.intersection(*(set(matrix.names) for matrix in found.values())))
    enough = [(np.isfinite(columns_of(matrix, shared)).sum(axis=0) >= MIN_PATIENTS) for matrix in found.values()]
    names = [name for name, is_enough in zip(shared, np.logical_and.reduce(enough), strict=True) if is_enough]
    return names, {name: columns_of(matrix, names) for name, matrix in found.items()}


def _stacked(tables: Mapping[str, Reals]) -> tuple[Reals, list[str]]:
    return np.vstack(list(tables.values())), [name for name, table in tables.items() for _ in table]


def _keep(
    workspace: Workspace, site: str, target: str, combat: Combat, n_fitted: int, *, run: str, at: datetime
) -> str:
    """The parameters as a row of `core__recipe`; returns its name."""
    facts = [{"harmonizer": "combat", "version": 1, "settings": {}, "learned": json.loads(combat.to_json())}]
    name = f"{target}-{site}-combat-{digest(facts)}"
    row = {"site": site, "target": target, "recipe": name, "steps": json.dumps(facts, sort_keys=True),
           "fitted_on": digest(list(combat.sites)), "n_fitted": n_fitted, "created_at": at, "run": run}  # fmt: skip
    workspace.lake.append(layout.RECIPE, rows_of(FITTED_RECIPE, [row]), transaction=transaction("recipe", name))
    return name
