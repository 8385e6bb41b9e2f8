"""Two processes end at the weights of one; one of them writes. Gloo on a CPU, started by torchrun."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("train_together.py")
Ends = dict[str, dict[str, Any]]


def run(folder: Path, *launcher: str) -> None:
    folder.mkdir()
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(folder)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the training alone, and of the two together."""
    alone, together = (tmp_path_factory.mktemp("x") / name for name in ("alone", "together"))
    run(alone)
    run(together, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return alone, together


@pytest.fixture(scope="module")
def alone(folders: tuple[Path, Path]) -> Ends:
    return dict(torch.load(folders[0] / "rank0.pt"))


@pytest.fixture(scope="module")
def together(folders: tuple[Path, Path]) -> list[Ends]:
    return [torch.load(folders[1] / f"rank{rank}.pt") for rank in (0, 1)]


def is_close(a: Ends, b: Ends, name: str, *, parameters_only: bool = False) -> bool:
    first, second = (ends[name]["weights"] for ends in (a, b))
    wanted = [key for key in first if not parameters_only or ("running" not in key and "num_batches" not in key)]
    return all(torch.allclose(first[key], second[key], rtol=1e-4, atol=1e-5) for key in wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "stopping", "probe"])
def test_two_processes_end_at_the_weights_of_one(alone: Ends, together: list[Ends], name: str) -> None:
    assert is_close(alone, together[0], name)
    assert together[0][name]["curve"] == pytest.approx(alone[name]["curve"], rel=1e-4)


@pytest.mark.slow
def test_batchnorm_sees_a_process_part_of_the_batch_as_it_sees_part_of_one_that_goes_in_parts(
    alone: Ends, together: list[Ends]
) -> None:
    """Only the running statistics differ, which two parts move twice in one process."""
    assert is_close(alone, together[0], "in_parts", parameters_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "stopping", "probe", "in_parts"])
def test_the_processes_agree_bit_for_bit(together: list[Ends], name: str) -> None:
    first, second = (ends[name]["weights"] for ends in together)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_only_the_first_process_writes(folders: tuple[Path, Path], together: list[Ends]) -> None:
    assert (folders[1] / "by_first").read_text(encoding="utf-8") == "0"
    kept = torch.load(folders[1] / "bookmark.pt", weights_only=True)
    assert all(torch.equal(kept["weights"][key], value) for key, value in together[0]["plain"]["weights"].items())
