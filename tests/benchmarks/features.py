"""CPU time of all image features of one volume, family by family.

    python -m tests.benchmarks.features [--rounds 5]

A CT of 512 x 512 x 200 voxels (0.7, 0.7, 2.5 mm) and, of the same numbers, an MR: a body with lungs,
bone, texture and noise. Prints CPU seconds of one thread (user and system) as medians over
rounds; each round cuts anew, as what families share is computed by the first that asks. Reading the
volume is not in it.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
from scipy import ndimage

from platform_core.features import FAMILIES
from platform_core.features.measure import FEATURES, measure
from platform_core.features.slices import cut_slices
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Geometry, Volume

SHAPE = (200, 512, 512)
GRID = Geometry((0.7, 0.7, 2.5))
GOAL_S = 1.0


def main() -> None:
    """Make the volumes and measure them."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=5)
    rounds = asked.parse_args().rounds
    ct = body()
    for modality, volume in (("CT", ct), ("MR", Volume(ct.voxels + np.int16(1100), GRID))):
        report(volume, modality, rounds)


def report(volume: Volume, modality: str, rounds: int) -> None:
    """Medians of each part, and of all in one."""
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for part, seconds in parts(volume, modality).items():
            taken.setdefault(part, []).append(seconds)
    whole = [cpu_seconds(lambda: measure(volume, modality)) for _ in range(rounds)]
    checked = [cpu_seconds(lambda: check_usable(volume)) for _ in range(rounds)]
    n_told = sum(value is not None for value in measure(volume, modality).values())
    print(f"\n{modality} {SHAPE[2]} x {SHAPE[1]} x {SHAPE[0]}: {n_told} of {len(FEATURES)} features told; CPU seconds")
    for part, times in taken.items():
        print(f"  {part:20s} {statistics.median(times):7.3f}   ({min(times):.3f} to {max(times):.3f})")
    median = statistics.median(whole)
    print(f"  {'all in one':20s} {median:7.3f}   goal {GOAL_S:g}, x {GOAL_S / median:.1f}")
    print(f"  {'whether it is usable':20s} {statistics.median(checked):7.3f}   (before it)")


def parts(volume: Volume, modality: str) -> dict[str, float]:
    """CPU seconds of the cut and of each family."""
    started = time.process_time()
    slices = cut_slices(volume, modality)
    taken = {"cut and foreground": time.process_time() - started}
    for name, family in FAMILIES.items():
        started = time.process_time()
        family.measure(slices)
        taken[name] = time.process_time() - started
    return taken


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def body() -> Volume:
    """HU, int16: an ellipse with two lungs, a spine, fat and a texture that every slice has in another place."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    hu = np.where(((y - 260) / 180) ** 2 + ((x - 256) / 230) ** 2 < 1, -90.0, -1000.0)
    hu[((y - 260) / 165) ** 2 + ((x - 256) / 215) ** 2 < 1] = 50
    for side in (-1, 1):
        hu[((y - 240) / 90) ** 2 + ((x - 256 - side * 110) / 60) ** 2 < 1] = -820
    hu[np.hypot(y - 380, x - 256) < 28] = 320
    hu = ndimage.gaussian_filter(hu, 1.0)
    texture = 60 * ndimage.gaussian_filter(rng.standard_normal((1024, 1024)), 6) * 6
    noise = 14 * rng.standard_normal((1024, 1024))
    voxels = np.empty(SHAPE, np.int16)
    for z in range(SHAPE[0]):
        rows, columns = (slice(start, start + 512) for start in rng.integers(0, 512, 2))
        voxels[z] = np.rint(hu + texture[z : z + 512, z : z + 512] + noise[rows, columns]).clip(-1024)
    return Volume(voxels, GRID)


if __name__ == "__main__":
    main()
