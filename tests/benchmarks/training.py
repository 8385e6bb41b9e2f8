"""How fast a network is trained: our loop, the bare network, and a plain MONAI loop, in one run on made scans.

    python -m tests.benchmarks.training [--network densenet121] [--side 64] [--scans 64] [--batch-size 8] [--rounds 3]

Four ways to train the same network on the same number of scans, in turns; medians of scans per second:

- `bare`: forward, backward, step on one batch that lies on the device already: what the device can do at best;
- `sitedrift`: `learn.fit`, strategy `full`; scans are resident, augmented on the device, weighted;
- `monai`: files read, scaled, resized and flipped at every epoch by a `DataLoader`, as MONAI's 3-D classification
  tutorial does (Adam, batches, float32 or autocast as ours);
- `probe`: an epoch of `linear_probe` on embeddings that are computed once; the first time is told apart.

Runs on a GPU if torch finds one, else on a CPU at whatever size is asked for.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median

import monai
import nibabel as nib
import numpy as np
import torch
from monai.data.dataloader import DataLoader
from monai.data.image_dataset import ImageDataset
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import ScaleIntensity
from monai.transforms.spatial.array import RandFlip, Resize
from monai.transforms.utility.array import EnsureChannelFirst
from torch.nn import functional

from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network
from platform_core.learn.phases import TrainingSet
from platform_core.learn.strategies import STRATEGIES
from platform_core.settings import TrainSettings

EPOCHS = 2
"""Timed epochs of a round; what comes before the first (moving, compiling, caching) is taken out by a difference."""
PROBE_EPOCHS = 400


def main() -> None:
    """Make scans, let everybody take turns, print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--network", default="densenet121")
    asked.add_argument("--side", type=int, default=64)
    asked.add_argument("--scans", type=int, default=64)
    asked.add_argument("--batch-size", type=int, default=8)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--workers", type=int, default=2, help="processes of MONAI's loader")
    options = asked.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.network} on {options.scans} scans of {options.side}^3, batches of {options.batch_size}; {name}")
    print(f"torch {torch.__version__}, monai {monai.__version__}")
    scans, y = made(options.scans, options.side)
    with tempfile.TemporaryDirectory() as folder:
        files = written(scans, Path(folder))
        ways: dict[str, Callable[[], float]] = {
            "bare": lambda: bare(options, scans, y, device),
            "sitedrift": lambda: ours(options, scans, y, "full", EPOCHS),
            "monai": lambda: tutorial(options, files, y, device),
            "probe": lambda: ours(options, scans, y, "linear_probe", PROBE_EPOCHS),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                rates[way].append(run())
    report({way: median(found) for way, found in rates.items()})


def made(n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Scans of noise with a bright ball in every second one, (n, 1, z, y, x) float32, and labels."""
    chance = np.random.default_rng(0)
    scans = chance.random((n, 1, side, side, side), dtype=np.float32)
    y = (np.arange(n) % 2).astype(np.float32)
    middle = slice(side // 3, 2 * side // 3)
    scans[y == 1, :, middle, middle, middle] += 0.5
    return scans, y


def written(scans: np.ndarray, folder: Path) -> list[str]:
    """The scans as NIfTI files, half as large again, since the tutorial resizes what it reads."""
    paths = [str(folder / f"{i:04d}.nii.gz") for i in range(len(scans))]
    larger = Resize([round(1.5 * side) for side in scans.shape[2:]])
    for path, scan in zip(paths, scans, strict=True):
        nib.save(nib.nifti1.Nifti1Image(np.asarray(larger(scan)[0]), np.eye(4)), path)
    return paths


def bare(options: argparse.Namespace, scans: np.ndarray, y: np.ndarray, device: torch.device) -> float:
    """Scans per second of the network alone, in the precision that ours has."""
    network = build_network(options.network, 3).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    x = torch.from_numpy(scans[: options.batch_size]).to(device)
    truth = torch.from_numpy(y[: options.batch_size]).to(device)
    n_steps = EPOCHS * (options.scans // options.batch_size)
    step(network, optimizer, x, truth)
    wait(device)
    started = time.monotonic()
    for _ in range(n_steps):
        step(network, optimizer, x, truth)
    wait(device)
    return float(n_steps * len(x) / (time.monotonic() - started))


def ours(options: argparse.Namespace, scans: np.ndarray, y: np.ndarray, strategy: str, n_epochs: int) -> float:
    """Scans per second of `learn.fit`, between its first epoch and its last."""
    data = TrainingSet(x=torch.from_numpy(scans), y=torch.from_numpy(y), weight=torch.ones(len(y)))
    share = STRATEGIES[strategy].phases[0].share
    took = {}
    for n in (1, 1 + n_epochs):
        settings = TrainSettings(epochs=round(n / share), batch_size=options.batch_size, learning_rate=1e-4)
        network = build_network(options.network, 3)
        started = time.monotonic()
        losses = fit(network, data, STRATEGIES[strategy], settings)
        took[n] = time.monotonic() - started
        assert len(losses) == n, "one loss per epoch"
    return n_epochs * len(y) / (took[1 + n_epochs] - took[1])


def tutorial(options: argparse.Namespace, files: list[str], y: np.ndarray, device: torch.device) -> float:
    """Scans per second where every scan is read and transformed at every epoch."""
    steps = Compose([ScaleIntensity(), EnsureChannelFirst(), Resize([options.side] * 3), RandFlip(prob=0.5)])
    scans = ImageDataset(image_files=files, labels=y.tolist(), transform=steps)
    loader = DataLoader(scans, batch_size=options.batch_size, shuffle=True, num_workers=options.workers)
    network = build_network(options.network, 3).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    seen, started = 0, 0.0
    for i, (x, truth) in enumerate(endless(loader)):
        if i == 1:
            wait(device)
            seen, started = 0, time.monotonic()
        if i > 1 and seen >= EPOCHS * len(y):
            break
        step(network, optimizer, torch.as_tensor(x).to(device), truth.float().to(device))
        seen += len(truth)
    wait(device)
    return float(seen / (time.monotonic() - started))


def endless(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader


def step(network: Classifier, optimizer: torch.optim.Optimizer, x: torch.Tensor, truth: torch.Tensor) -> None:
    """One update."""
    optimizer.zero_grad()
    with precision(x.device):
        loss = functional.binary_cross_entropy_with_logits(network(x).squeeze(1), truth)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def precision(device: torch.device) -> AbstractContextManager[object]:
    """As our loop chooses it."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def wait(device: torch.device) -> None:
    """For the device to have done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def report(rate: dict[str, float]) -> None:
    """Scans per second and what they are to the bare network."""
    for way, found in rate.items():
        print(f"  {way:<10} {found:12.1f} scans/s   x {found / rate['bare']:8.2f} of the bare network")
    print(f"  an epoch of the probe costs 1/{rate['probe'] / rate['sitedrift']:.0f} of a training epoch")


if __name__ == "__main__":
    main()
