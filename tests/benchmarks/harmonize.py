"""Resampling, histogram matching and a whole recipe, against the tools that people use, in one run on a digital CT.

    python -m tests.benchmarks.harmonize [--rounds 3] [--quick]

Prints CPU seconds (user and system) on one thread, as medians over rounds in which the programs take
turns, the ratio to ours, and how far each is from exact linear interpolation (or box average) in double
precision at its own grid's places, over the inner voxels of every 16th plane. Who takes more than 4 s runs once.
Everybody gets the voxels as an array and gives an array back. Needs `pip install torchio scikit-image`.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch
from scipy import ndimage

from platform_core.harmonize import landmarks, taps
from platform_core.harmonize.compiled import compiled_loops
from platform_core.harmonize.histogram_match import HistogramMatch, learn_landmarks, map_to_target
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, fit_recipe, parse_recipe
from platform_core.harmonize.resample import Resample, resample
from platform_core.harmonize.taps import SHRINK_FROM
from platform_core.imaging.foreground import evenly
from platform_core.imaging.freed_memory import keep_freed_memory
from platform_core.imaging.nifti import decode_volume, encode_rounded, encode_volume
from platform_core.imaging.volume import Geometry, Volume
from platform_core.settings import StepSettings

Floats = npt.NDArray[np.float64]
Run = Callable[[], Any]

SPACING_MM, WANTED_MM = (0.7, 0.7, 2.5), (1.0, 1.0, 1.0)
SLOW_S = 4.0
EVERY = 16
"""One in so many planes is compared; they meet every phase between output and input slices."""
N_INSIDE = 400
"""Places within an output voxel over which the exact line is averaged."""

N_SAMPLED = 1_000_000
"""Voxels of which the 256 quantiles are taken."""


@dataclass
class Contestant:
    """Somebody's way, and how to look at what it gives."""

    run: Run
    look: Callable[[Any], str] = lambda _: ""


def main() -> None:
    """Make the scans, let everybody take turns, print the tables."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--quick", action="store_true", help="an eighth of the voxels")
    options = asked.parse_args()
    try:
        others = ", ".join(
            f"{name} {version(name)}" for name in ("SimpleITK", "torchio", "monai", "scikit-image", "scipy")
        )
    except PackageNotFoundError:
        sys.exit("needs two packages that the platform does not: pip install torchio scikit-image")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    kept = keep_freed_memory()
    started = time.monotonic()
    assert compiled_loops() is not None, "needs numba"
    print(f"compiled loops ready after {time.monotonic() - started:.1f} s (the first time on a machine they are made)")
    scan = ct((100, 256, 256) if options.quick else (200, 512, 512))
    print(
        f"CT of {scan.size} voxels, int16, {SPACING_MM} mm; {options.rounds} rounds; CPU seconds on one thread, medians"
    )
    print(others)
    print(f"freed memory stays with the process, for everybody: {kept}")
    for what, contestants in (
        (f"resampling to {WANTED_MM} mm", resampling(scan)),
        ("histogram matching to another scan (12 landmarks of the site, or of the scan, or its whole histogram)",
         matching(scan)),
        ("read .nii.gz, orient, resample, window, match, write .nii.gz", whole(scan)),
    ):  # fmt: skip
        report(what, contestants, options.rounds)


def ct(shape: tuple[int, int, int], seed: int = 0) -> Volume:
    """A chest of air, tissue, lungs and bone with noise of 25 HU, (z, y, x)."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    plane = np.full(shape[1:], -1000.0)
    for middle_x, middle_y, half_x, half_y, hu in (
        (0, 0, 0.8, 0.6, 40), (0.35, 0, 0.25, 0.4, -850), (-0.35, 0, 0.25, 0.4, -850), (0, 0.45, 0.1, 0.1, 600)
    ):  # fmt: skip
        plane[((x - middle_x) / half_x) ** 2 + ((y - middle_y) / half_y) ** 2 < 1] = hu
    voxels = rng.standard_normal(shape, dtype=np.float32)
    voxels *= 25
    voxels += plane.astype(np.float32)
    return Volume(np.clip(np.rint(voxels), -1024, 3071).astype(np.int16), Geometry(SPACING_MM))


def report(what: str, contestants: dict[str, Contestant], rounds: int) -> None:
    """Time everybody in turns, the first is ours; once unmeasured, unless that takes too long."""
    taken: dict[str, list[float]] = {}
    seen: dict[str, str] = {}
    for name, contestant in contestants.items():
        before = time.process_time()
        result = contestant.run()
        taken[name] = [time.process_time() - before]
        seen[name] = contestant.look(result)
        del result
    fast = [name for name in contestants if taken[name][0] < SLOW_S]
    for turn in range(rounds):
        for name in fast:
            before = time.process_time()
            contestants[name].run()
            spent = time.process_time() - before
            taken[name] = [*taken[name], spent] if turn else [spent]
    ours = median(next(iter(taken.values())))
    print(f"\n{what}")
    for name, times in taken.items():
        spread = f"{min(times):.3f} to {max(times):.3f}"
        print(f"  {name:44s} {median(times):7.3f} s  x {median(times) / ours:5.1f}  {spread:>16s}   {seen[name]}")


def without_numba(run: Run) -> Run:
    """Our own way where the compiled loops cannot be had."""

    def plain() -> Any:
        with (
            patch.object(taps, "compiled_loops", lambda: None),
            patch.object(landmarks, "compiled_loops", lambda: None),
        ):
            return run()

    return plain


def resampling(scan: Volume) -> dict[str, Contestant]:
    """To 1 mm. Grids differ by half a voxel or so from tool to tool: each is compared at its own places."""
    torchio: Any = import_module("torchio")
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    plain, averaged = (Resample(spacing_mm=WANTED_MM, antialias=antialias) for antialias in (False, True))
    grid = resample(scan, plain, {})
    assert grid.geometry is not None
    size, first = grid.size, np.asarray(grid.geometry.origin_mm)
    channel = scan.voxels.T[None]
    affine = np.diag([*SPACING_MM, 1.0])

    def ours(settings: Resample) -> Contestant:
        average = [
            settings.antialias and new / old >= SHRINK_FROM for old, new in zip(SPACING_MM, WANTED_MM, strict=True)
        ]
        return Contestant(lambda: resample(scan, settings, {}).voxels, lambda out: distance(scan, out, first, average))

    def by_simpleitk(pixel: int) -> npt.NDArray[Any]:
        image = sitk.GetImageFromArray(scan.voxels)
        image.SetSpacing(SPACING_MM)
        way = (sitk.Transform(), sitk.sitkLinear, first.tolist(), WANTED_MM)
        moved = sitk.Resample(image, size, *way, outputPixelType=pixel)
        found: npt.NDArray[Any] = sitk.GetArrayFromImage(moved)
        return found

    def by_scipy() -> npt.NDArray[Any]:
        factor = np.asarray(WANTED_MM[::-1]) / SPACING_MM[::-1]
        start = first[::-1] / SPACING_MM[::-1]
        return ndimage.affine_transform(
            scan.voxels, factor, start, size[::-1], output=np.float32, order=1, mode="nearest", prefilter=False
        )

    def by_torchio() -> tuple[npt.NDArray[Any], Floats]:
        image = torchio.ScalarImage(tensor=torch.from_numpy(channel), affine=affine)
        moved = torchio.Resample(WANTED_MM)(image)
        return moved.data[0].numpy().T, moved.affine[:3, 3]

    def by_monai() -> tuple[npt.NDArray[Any], Floats]:
        image = MetaTensor(torch.from_numpy(channel), affine=torch.from_numpy(affine))
        moved = Spacing(WANTED_MM, mode="bilinear", padding_mode="border", dtype=torch.float32)(image)
        return moved[0].numpy().T, np.asarray(moved.affine[:3, 3])

    def at_place(found: tuple[npt.NDArray[Any], Floats]) -> str:
        return distance(scan, found[0], found[1])

    def at_grid(out: npt.NDArray[Any]) -> str:
        return distance(scan, out, first)

    return {
        "sitedrift, linear": ours(plain),
        "sitedrift, averaged where it shrinks": ours(averaged),
        "sitedrift without numba, linear": Contestant(without_numba(ours(plain).run), at_grid),
        "sitedrift without numba, averaged": Contestant(without_numba(ours(averaged).run), ours(averaged).look),
        "SimpleITK linear, as int16": Contestant(lambda: by_simpleitk(sitk.sitkInt16), at_grid),
        "SimpleITK linear, as float32": Contestant(lambda: by_simpleitk(sitk.sitkFloat32), at_grid),
        "scipy.ndimage.affine_transform, order 1": Contestant(by_scipy, at_grid),
        "TorchIO Resample": Contestant(by_torchio, at_place),
        "MONAI Spacing, bilinear": Contestant(by_monai, at_place),
        "filling an array of the result's size": Contestant(lambda: np.full(size[::-1], 1, np.float32)),
    }


def distance(scan: Volume, out: npt.NDArray[Any], first_mm: Floats, average: list[bool] | None = None) -> str:
    """Greatest and 99.9 % difference in HU from exact interpolation where both grids have voxels around."""
    weights = [
        exact_weights(n_old, n_new, start, old, new, averaged=averaged)
        for n_old, n_new, start, old, new, averaged in zip(
            scan.size, out.shape[::-1], first_mm, SPACING_MM, WANTED_MM, average or [False] * 3, strict=True
        )
    ]
    worst = []
    for z in range(EVERY // 2, len(out) - EVERY // 2, EVERY):
        near = np.flatnonzero(weights[2][z])
        plane = np.tensordot(weights[2][z, near], scan.voxels[near].astype(np.float64), 1)
        exact = weights[1] @ plane @ weights[0].T
        worst.append(np.abs(out[z] - exact)[4:-4, 4:-4].ravel())
    off = np.concatenate(worst)
    return f"{off.max():9.4f} HU at most, {np.quantile(off, 0.999):8.4f} at 99.9 %"


def exact_weights(n_old: int, n_new: int, start_mm: float, old_mm: float, new_mm: float, *, averaged: bool) -> Floats:
    """Matrix (new, old) of linear interpolation along one axis, or of its average over the new voxel."""
    inside = ((np.arange(N_INSIDE) + 0.5) / N_INSIDE - 0.5) * new_mm if averaged else np.zeros(1)
    place = np.clip((start_mm + np.arange(n_new)[:, None] * new_mm + inside) / old_mm, 0, n_old - 1)
    weights = np.zeros((n_new, n_old))
    for number in range(n_old):
        weights[:, number] = np.maximum(1 - np.abs(place - number), 0).mean(axis=1)
    return weights


def matching(scan: Volume) -> dict[str, Contestant]:
    """A scan of another scanner to the reference; learning on this one scan is timed too."""
    torchio: Any = import_module("torchio")
    from skimage.exposure import match_histograms

    seen = Volume(np.rint(other_scanner(ct(scan.voxels.shape, seed=1).voxels)).astype(np.int16), scan.geometry)
    settings, at_reference = HistogramMatch(), learn_landmarks(HistogramMatch(), [scan], None)
    shares = np.linspace(0, 1, 257)
    target = np.quantile(scan.voxels, shares)
    percentiles = sorted({1, 99, 25, 75, *range(10, 100, 10)})
    standard = np.percentile(scan.voxels, percentiles)

    def by_site() -> npt.NDArray[Any]:
        return map_to_target(seen, settings, learn_landmarks(settings, [seen], at_reference)).voxels

    def by_site_from_float() -> npt.NDArray[Any]:
        return map_to_target(as_float, settings, learned).voxels

    def by_quantiles() -> npt.NDArray[Any]:
        own = np.quantile(evenly(seen.voxels, N_SAMPLED), shares)
        kept = np.concatenate([[True], np.diff(own) > 0])
        return landmarks.map_piecewise(seen.voxels, own[kept], target[kept])

    def by_torchio() -> npt.NDArray[Any]:
        image = torchio.ScalarImage(tensor=torch.from_numpy(seen.voxels[None]))
        matched = torchio.HistogramStandardization({"ct": standard})(torchio.Subject(ct=image))
        found: npt.NDArray[Any] = matched["ct"].data[0].numpy()
        return found

    def look(out: npt.NDArray[Any]) -> str:
        at = np.linspace(0.01, 0.99, 99)
        off = np.abs(np.quantile(out[1::4], at) - np.quantile(scan.voxels[1::4], at))
        return f"{off.mean():7.2f} HU mean, {off.max():7.2f} at most, of the percentiles 1 to 99"

    learned = learn_landmarks(settings, [seen], at_reference)
    as_float = Volume(seen.voxels.astype(np.float32), seen.geometry)
    return {
        "sitedrift, the site's landmarks": Contestant(by_site, look),
        "sitedrift, of float32, already learned": Contestant(by_site_from_float, look),
        "sitedrift without numba, of float32, learned": Contestant(without_numba(by_site_from_float), look),
        "sitedrift's map, 256 quantiles of the scan": Contestant(by_quantiles, look),
        "scikit-image match_histograms": Contestant(lambda: match_histograms(seen.voxels, scan.voxels), look),
        "TorchIO HistogramStandardization (Nyul)": Contestant(by_torchio, look),
    }


def other_scanner(voxels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Gain, offset and a bend, all monotone."""
    share = (voxels.astype(np.float32) + 1024) / 4096
    return 4000 * np.power(share, np.float32(0.93)) - 1000


def whole(scan: Volume) -> dict[str, Contestant]:
    """From the stored file's bytes to the harmonized file's bytes, and what reading and writing alone costs."""
    steps: list[dict[str, Any]] = [
        {"harmonizer": "orient"},
        {"harmonizer": "resample", "spacing_mm": WANTED_MM},
        {"harmonizer": "clip_intensity", "low": -1000.0, "high": 400.0},
        {"harmonizer": "histogram_match", "foreground_above": -500.0},
    ]
    recipe = parse_recipe([StepSettings.model_validate(step) for step in steps])
    seen = Volume(np.rint(scan.voxels * np.float32(1.02) + 20).astype(np.int16), scan.geometry)
    fitted = fit_recipe(recipe, [seen], fit_recipe(recipe, [scan], None))
    stored = encode_volume(seen)

    def ours(fitted: FittedRecipe) -> bytes:
        return encode_rounded(apply_recipe(fitted, decode_volume(stored)).volume)[0]

    def look(data: bytes) -> str:
        return f"{len(data) / 1e6:6.1f} MB from {len(stored) / 1e6:.1f} MB"

    return {
        "reading and writing with isal alone": Contestant(lambda: encode_volume(decode_volume(stored)), look),
        "sitedrift, the whole recipe": Contestant(lambda: ours(fitted), look),
        "sitedrift without numba": Contestant(without_numba(lambda: ours(fitted)), look),
    }


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"\n{time.monotonic() - begun:.0f} s in all")
