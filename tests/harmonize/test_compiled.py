"""Compiled loops give the bits that NumPy gives, and are never missed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core.harmonize import landmarks, taps
from platform_core.harmonize.compiled import compiled_loops

ROOT = Path(__file__).parents[2]
sizes = st.integers(1, 12)
factors = st.floats(0.3, 4.0)
kinds = st.sampled_from(["int16", "float32", "uint8", "int32"])


def both_ways(module: Any, compute: Callable[[], Any]) -> tuple[Any, Any]:
    """The result with and without the compiled loops."""
    assert compiled_loops() is not None
    with pytest.MonkeyPatch.context() as patch:
        compiled = compute()
        patch.setattr(module, "compiled_loops", lambda: None)
        return compiled, compute()


@given(st.tuples(sizes, sizes, sizes), st.tuples(factors, factors, factors), kinds, st.booleans(), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_resampling_gives_the_same_bits(
    size: tuple[int, int, int], factor: tuple[float, float, float], kind: str, spline: bool, seed: int
) -> None:
    voxels = np.random.default_rng(seed).integers(0, 200, size[::-1]).astype(kind)
    x, y, z = (
        taps.taps(n, max(1, round(n / f)), f, "bspline" if spline else "linear", antialias=True)
        if n > 1
        else taps.untouched(n)
        for n, f in zip(size, factor, strict=True)
    )
    compiled, numpy = both_ways(taps, lambda: taps.weigh(voxels, (x, y, z)))
    assert compiled.dtype == numpy.dtype == np.float32
    assert np.array_equal(compiled, numpy)


@given(st.lists(st.floats(-1000, 1000).map(lambda v: round(v, 3)), min_size=1, max_size=12), kinds, st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_map_through_landmarks_gives_the_same_bits(knots: list[float], kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = landmarks.merge_close(np.sort(knots), np.sort(rng.normal(0, 500, len(knots))))
    voxels = rng.integers(0, 200, (3, 31, 50)).astype(kind)
    compiled, numpy = both_ways(landmarks, lambda: landmarks.map_piecewise(voxels, x, y))
    assert np.array_equal(compiled, numpy)


def run(code: str, **environment: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PATH": "", **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


WORK = """
import sys
import numpy as np
{before}
from platform_core.harmonize.compiled import compiled_loops
from platform_core.harmonize.resample import Resample, resample
from platform_core.imaging.volume import Geometry, Volume
out = resample(Volume(np.ones((4, 9, 9), np.int16), Geometry((1, 1, 2))), Resample(spacing_mm=(1, 2, 1)), {{}})
print(compiled_loops() is not None, out.voxels.shape, out.voxels.min())
"""


def test_without_numba_numpy_does_the_work() -> None:
    assert run(WORK.format(before="sys.modules['numba'] = None")) == "False (8, 4, 9) 1.0"


NO_FOLDER = "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []"
CUT_SHORT = "import pickle, numba.core.caching as c; c.IndexDataCacheFile._load_index = lambda _: pickle.loads(b'')"


@pytest.mark.slow
@pytest.mark.parametrize("before", [NO_FOLDER, CUT_SHORT], ids=["no folder", "a file cut short"])
def test_without_a_usable_cache_compiling_still_works(before: str) -> None:
    assert run(WORK.format(before=before)) == "True (8, 4, 9) 1.0"


def test_numba_is_not_imported_before_a_volume_is_moved() -> None:
    code = "import sys, platform_core.harmonize.recipe; print([m for m in ('numba', 'torch') if m in sys.modules])"
    assert run(code) == "[]"
