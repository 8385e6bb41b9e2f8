"""What is commonly done instead: two-sample tests and index thresholds on a window of the last scans.

All take windows (checks, scans) of one feature and its reference. Evidently's rule is restated here from its sources,
so that a thousand checks of a thousand sites take minutes; `agreement` runs the library itself on some of them.
"""

import json
import math
import os
import subprocess

import numpy as np
import numpy.typing as npt

from platform_core.shift.risk import Reals

Flags = npt.NDArray[np.bool_]


def windows_of(values: Reals, ends: npt.NDArray[np.int64], n: int) -> Reals:
    """The last n values before each end, (checks, n), ascending; the first n where there are not as many yet."""
    at = np.maximum(ends, n)[:, None] - np.arange(n, 0, -1)
    return np.sort(values[at], axis=1)


def ks_distances(windows: Reals, reference: Reals) -> Reals:
    """Largest distance between the distribution of each window and the reference's, (checks,), 0 to 1."""
    ordered, n = np.sort(reference), windows.shape[1]
    right = np.searchsorted(ordered, windows, "right") / len(ordered)
    left = np.searchsorted(ordered, windows, "left") / len(ordered)
    # equal values are one step of the window's distribution
    is_last = np.append(windows[:, 1:] != windows[:, :-1], np.ones((len(windows), 1), bool), axis=1)
    is_first = np.append(np.ones((len(windows), 1), bool), windows[:, 1:] != windows[:, :-1], axis=1)
    steps = np.arange(n + 1) / n
    above = np.where(is_last, abs(right - steps[1:]), 0).max(axis=1)
    below = np.where(is_first, abs(left - steps[:-1]), 0).max(axis=1)
    return np.asarray(np.maximum(above, below), np.float64)


def ks_flags(windows: Reals, reference: Reals, alpha: float) -> Flags:
    """Whether a two-sample Kolmogorov-Smirnov test rejects at `alpha`, by its limiting distribution."""
    critical = math.sqrt(-math.log(alpha / 2) / 2 * (1 / windows.shape[1] + 1 / len(reference)))
    return ks_distances(windows, reference) > critical


def psi(windows: Reals, reference: Reals, n_bins: int) -> Reals:
    """Population stability index of each window on the reference's quantiles, nats; half a count is added per bin."""
    edges = np.unique(np.quantile(reference, np.arange(1, n_bins) / n_bins))
    old = np.bincount(np.searchsorted(edges, reference, "left"), minlength=len(edges) + 1)
    bins = np.searchsorted(edges, windows, "left")
    new = np.stack([(bins == b).sum(axis=1) for b in range(len(old))], axis=1)
    p = (old + 0.5) / (old + 0.5).sum()
    q = (new + 0.5) / (new + 0.5).sum(axis=1, keepdims=True)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=1), np.float64)


def evidently_flags(windows: Reals, reference: Reals) -> Flags:
    """Whether Evidently's default test says that a numerical column has drifted.

    Up to 1,000 reference rows a KS test at .05; beyond them Wasserstein-1 in standard deviations of the reference, .1.

    Source:
        Evidently 0.7.23, legacy/calculations/stattests/registry.py and wasserstein_distance_norm.py.
    """
    if len(reference) <= 1000:
        from scipy.stats import kstwo

        n_effective = round(windows.shape[1] * len(reference) / (windows.shape[1] + len(reference)))
        return ks_distances(windows, reference) > float(kstwo.isf(0.05, n_effective))
    ordered = np.sort(reference)
    n, m = windows.shape[1], len(ordered)
    # both quantile functions are constant between the points of the merged grid
    grid = np.unique(np.concatenate([np.arange(n + 1) * m, np.arange(m + 1) * n]))
    at = (grid[:-1] + grid[1:]) / 2
    of_window, of_reference = (at // m).astype(np.intp), (at // n).astype(np.intp)
    distance = abs(windows[:, of_window] - ordered[of_reference]) @ (np.diff(grid) / (n * m))
    return np.asarray(distance / max(float(reference.std()), 0.001) >= 0.1)


AGREEMENT = """
import json, sys
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
asked = json.load(sys.stdin)
reference = pd.DataFrame(asked["reference"])
said = []
for window in asked["windows"]:
    found = Report([DataDriftPreset()]).run(pd.DataFrame(window), reference).dict()["metrics"]
    said.append(next(m["value"]["count"] for m in found if "DriftedColumnsCount" in m["metric_name"]))
print("SAID" + json.dumps(said))
"""


def said_by_evidently(windows: list[dict[str, list[float]]], reference: dict[str, list[float]]) -> list[int] | None:
    """How many columns the library itself says have drifted; None unless SITEDRIFT_EVIDENTLY names its Python."""
    python = os.environ.get("SITEDRIFT_EVIDENTLY")
    if not python:
        return None
    asked = json.dumps({"windows": windows, "reference": reference})
    done = subprocess.run([python, "-c", AGREEMENT], input=asked, capture_output=True, text=True, check=True)
    said: list[int] = json.loads(done.stdout.split("SAID")[-1])
    return said
