"""The GPU's way, run by torch on the processor: a GPU itself is not at hand where tests run."""

from pathlib import Path

import numpy as np
import pytest

from platform_core.harmonize import cuda
from platform_core.harmonize.landmarks import _segments, map_piecewise
from platform_core.harmonize.taps import taps, untouched, weigh


@pytest.mark.parametrize("kind", ["int16", "float32", "uint8"])
@pytest.mark.parametrize("n_z", [4, 13])
def test_resampling_agrees_with_numpy(kind: str, n_z: int) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (8, 15, 12)).astype(kind)
    x, y = taps(12, 8, 1.5, "linear", antialias=True), untouched(15)
    z = taps(8, n_z, 8 / n_z, "bspline", antialias=True)
    order = [(2, x.index, x.weight), (0, z.index, z.weight)]
    found = cuda.weigh(voxels, order if n_z > 8 else order[::-1], device="cpu")
    assert found.dtype == np.float32
    assert np.abs(found - weigh(voxels, (x, y, z))).max() < 200 * 1e-6


@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_map_through_landmarks_agrees_with_numpy(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "PIECE_VOXELS", 100)
    x, y = np.linspace(-900, 900, n), np.linspace(-30, 40, n) ** 3
    voxels = np.random.default_rng(0).normal(0, 800, (3, 20, 20)).astype(np.float32)
    found = cuda.add_segments(voxels, *_segments(x, y), device="cpu")
    expected = map_piecewise(voxels, x, y)
    assert found.shape == voxels.shape
    assert np.abs(found - expected).max() <= np.abs(expected).max() * 2e-6


def test_input_is_left_alone() -> None:
    voxels = np.ones((3, 8, 8), np.float32)
    cuda.add_segments(voxels, *_segments(np.array([0.0, 1.0]), np.array([3.0, 9.0])), device="cpu")
    assert (voxels == 1).all()


@pytest.mark.parametrize("driver", [True, False])
def test_a_gpu_is_taken_where_there_is_one_and_nobody_forbids_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(cuda, "DRIVER", tmp_path if driver else tmp_path / "none")
    for asked, expected in ((None, driver), ("auto", driver), ("cpu", False), ("cuda", True)):
        monkeypatch.delenv("SITEDRIFT_DEVICE", raising=False)
        if asked:
            monkeypatch.setenv("SITEDRIFT_DEVICE", asked)
        cuda.is_wanted.cache_clear()
        assert cuda.is_wanted() == expected
    cuda.is_wanted.cache_clear()
