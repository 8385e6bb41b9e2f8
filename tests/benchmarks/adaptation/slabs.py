"""Scans of the small world as the benchmark keeps them: three slices about a marked spot, and what was measured.

Patients, scanners and what may happen to them are those of the detection experiment. A radiologist has marked one spot
per patient, the lesion or the place that looks most like one, with an error of 1.5 mm; a scan is the slab of three
slices about it, whole in plane, so that recipes are fitted and applied to it as to any volume. Native features were
measured on the whole volume before it was cut. Kept in `.cache`, a file per world, named by what made it.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from platform_core.imaging.volume import Geometry, Volume
from platform_core.shift.risk import Reals
from tests.benchmarks.detection.operators import NONE
from tests.benchmarks.detection.pool import features_of
from tests.benchmarks.detection.world import SEED, Patient, draw_patient, render

Rows = npt.NDArray[np.intp]
World = tuple[str, int]
"""Operator and strength."""

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
DETECTION = HERE.parent / "detection"
ROOT = HERE.parents[2]
MARK_SD_MM = 1.5
SOURCE_FROM = 20_000
"""Number of the source hospital's first patient; those of every other site are numbered from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Patients that are drawn from."""

    name: str
    site: int
    mixed: int
    """Of a world that comes with another prevalence as well."""
    other: int
    """Of a site that is only asked whether it suffers."""
    source: int

    def of(self, world: World) -> int:
        """Patients of a site's world."""
        if world[1] == 0 and world != NONE:
            return self.other
        return self.mixed if world[0] in MIXED else self.site


MIXED = ("none", "psf")
FULL = Size(name="full", site=1900, mixed=2700, other=500, source=4500)
QUICK = Size(name="quick", site=1150, mixed=1650, other=200, source=1900)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slabs(Sequence[Volume]):
    """Patients of one world, one slab each, in order of their number."""

    voxels: npt.NDArray[np.int16]
    """(patient, z, y, x), HU."""
    spacing_mm: Reals
    """(patient, 3): x, y, z."""
    origin_mm: Reals
    """(patient, 3): x, y, z."""
    mark_mm: Reals
    """(patient, 2): x, y of the marked spot."""
    values: Reals
    """(patient, feature) of the whole native volume, in the order of `FEATURES`; NaN where unknown."""
    y: Reals

    def __len__(self) -> int:
        return len(self.y)

    @overload
    def __getitem__(self, index: int) -> Volume: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Volume]: ...
    def __getitem__(self, index: int | slice) -> Volume | Sequence[Volume]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        spacing, origin = (tuple(float(mm) for mm in part[index]) for part in (self.spacing_mm, self.origin_mm))
        return Volume(self.voxels[index], Geometry(spacing, origin))  # type: ignore[arg-type]

    def draw(self, rng: np.random.Generator, n: int, prevalence: float, without: Rows | None = None) -> Rows:
        """Draw `n` different patients, each positive with the chance `prevalence`.

        Raises:
            ValueError: If there are too few of a class.
        """
        among = np.setdiff1d(np.arange(len(self)), [] if without is None else without)
        n_positive = int(rng.binomial(n, prevalence))
        parts = [(among[self.y[among] == 1], n_positive), (among[self.y[among] == 0], n - n_positive)]
        return rng.permutation(np.concatenate([rng.choice(rows, k, replace=False) for rows, k in parts]))


@lru_cache(maxsize=3)
def slabs_of(world: World, size: Size, *, is_source: bool = False) -> Slabs:
    """The patients of a world, rendered where they are not kept yet; half a minute for a thousand patients at most."""
    n = size.source if is_source else size.of(world)
    who = "source" if is_source else f"{world[0]}-{world[1]}"
    file = CACHE / f"slabs-{_digest()}" / f"{who}-{n}.npz"
    if not file.exists():
        started = time.process_time()
        _keep(file, _rendered(world, range(SOURCE_FROM, SOURCE_FROM + n) if is_source else range(n)))
        print(f"{who}: {n} patients, {time.process_time() - started:.0f} s", flush=True)
    with np.load(file) as kept:
        return Slabs(**kept)


def _rendered(world: World, numbers: range) -> dict[str, npt.NDArray[np.generic]]:
    rows = [_slab(draw_patient(number), world) for number in numbers]
    names = ("voxels", "spacing_mm", "origin_mm", "mark_mm", "values", "y")
    return {name: np.stack(part) for name, part in zip(names, zip(*rows, strict=True), strict=True)}


def _slab(patient: Patient, world: World) -> tuple[npt.ArrayLike, ...]:
    volume = render(patient, *world)
    assert volume.geometry is not None, "a scanner knows where its voxels lie"
    (_, _, mm), (x0, y0, z0) = volume.geometry.spacing_mm, volume.geometry.origin_mm
    z, y, x = (float(v) for v in patient.anatomy.blobs.centre_mm[0])
    middle = int(np.clip(round((z - z0) / mm), 1, len(volume.voxels) - 2))
    error = np.random.default_rng([SEED, patient.number, 1]).normal(0, MARK_SD_MM, 2)
    return (
        volume.voxels[middle - 1 : middle + 2],
        np.asarray(volume.geometry.spacing_mm),
        np.array([x0, y0, z0 + (middle - 1) * mm]),
        np.array([x, y]) + error,
        features_of(volume),
        np.float64(patient.y),
    )


@lru_cache
def _digest() -> str:
    """Of what decides how a scan looks and what is measured of it."""
    files = [Path(__file__), DETECTION / "operators.py", DETECTION / "world.py"]
    files += [ROOT / "platform_core" / "phantom" / f"{name}.py" for name in ("acquire", "anatomy")]
    files += sorted((ROOT / "platform_core" / "features").glob("*.py"))
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def _keep(file: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npz")
    np.savez(part, allow_pickle=False, **arrays)
    part.replace(file)
