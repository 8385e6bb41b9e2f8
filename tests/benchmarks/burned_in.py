"""How often the look for burned-in text finds drawn text, and how often it holds a real image.

    python -m tests.benchmarks.burned_in [folder of real scans]

Every second image (in the order of names) was used to choose the bounds in
`platform_core/dicom/glyphs.py`; only the others are reported, unless `--tuning` is given.
An alarm on a real image need not be false: `--save DIR` writes each alarm's surroundings as a
picture, to be looked at.
"""

import argparse
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from platform_core.dicom.burned_in import Suspicion, has_text_like_regions
from platform_core.dicom.elements import may_be_dicom
from platform_core.phantom.cohort import default_cohorts, draw_studies
from platform_core.phantom.write import render
from tests.dicom.text_images import Plane, draw_text, font_of

TEXTS = (
    "MUSTERMANN^ERIKA",
    "Doe, John",
    "12/03/1961",
    "ID 4711089",
    "Anna Maria Schmidt",
    "SMITH J",
    "2024-05-17 10:32",
)
FOLDER = Path("/usr/share/fonts/truetype")
FONTS = {
    "DejaVu Sans": FOLDER / "dejavu/DejaVuSans.ttf",
    "DejaVu Mono Bold": FOLDER / "dejavu/DejaVuSansMono-Bold.ttf",
    "Liberation Sans": FOLDER / "liberation/LiberationSans-Regular.ttf",
    "Liberation Serif": FOLDER / "liberation/LiberationSerif-Regular.ttf",
    "Liberation Narrow": FOLDER / "liberation/LiberationSansNarrow-Regular.ttf",
}
SIZES_PX = (9, 11, 14, 18, 24, 36, 48)
TONES = {"white": 1.0, "black": 0.0, "grey": 0.75}
"""Stored value of the text as a share of the image's full range."""
COLLECTIONS = {
    "nih_cohen": "src_nih_cohen/*/*.png",
    "hannover": "src_hannover/png/*",
    "nih_tiny": "src_nih_tiny/*/*/*/*",
}


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=Path(os.environ.get("SITEDRIFT_TEST_DATA", "tests/data")))
    parser.add_argument("--tuning", action="store_true", help="the half that the bounds were chosen on")
    parser.add_argument("--save", type=Path, help="a folder for pictures of the alarms")
    asked = parser.parse_args()
    half = slice(0, None, 2) if asked.tuning else slice(1, None, 2)
    clean = []
    for name, pattern in COLLECTIONS.items():
        files = sorted((asked.data / "cxr").glob(pattern))[half]
        planes = [np.asarray(Image.open(file).convert("L")) for file in files]
        held = [has_text_like_regions(plane[None], "DX") for plane in planes]
        print(f"{name}: {sum(map(bool, held))} of {len(planes)} real images are held")
        _save(asked.save, name, planes, held)
        if name != "nih_tiny":
            clean += [plane for plane, found in zip(planes, held, strict=True) if found is None]
    _slices(asked.data / "dicom")
    _phantom()
    if clean:
        _detection(clean)
    _speed()


def _detection(planes: list[Plane], n_drawn: int = 3000) -> None:
    """Draw text of every kind somewhere into images in which nothing was found."""
    rng = np.random.default_rng(7)
    found: dict[tuple[str, object], list[bool]] = defaultdict(list)
    fonts = {name: path for name, path in FONTS.items() if path.exists()} | {
        "Pillow's own": None,
        "Pillow's bitmap": None,
    }
    while len(found["drawn", "all"]) < n_drawn:
        plane = planes[rng.integers(len(planes))]
        name, text = rng.choice(list(fonts)), str(rng.choice(TEXTS))
        size, turns, tone = int(rng.choice(SIZES_PX)), int(rng.choice([0, 0, 1, 3])), str(rng.choice(list(TONES)))
        path = fonts[name]
        bitmap = name == "Pillow's bitmap"
        font = ImageFont.load_default_imagefont() if bitmap else font_of(None if path is None else str(path), size)
        place = (int(rng.integers(plane.shape[0])), int(rng.integers(plane.shape[1])))
        try:
            drawn = draw_text(plane, text, font, 255 * TONES[tone], place, turns)
        except ValueError:
            continue
        is_found = has_text_like_regions(drawn.plane[None], "DX") is not None
        found["drawn", "all"].append(is_found)
        strong = drawn.contrast_fraction >= 1 / 3
        contrast = "at least 1/3" if strong else "1/5 to 1/3" if drawn.contrast_fraction >= 1 / 5 else "below 1/5"
        found["contrast to the background, of the range", contrast].append(is_found)
        if not strong:
            continue
        kinds = (("font", name), ("size in px", 11 if bitmap else size), ("quarter turns", turns), ("tone", tone))
        for what, value in (*kinds, ("text", text)):
            found[what, value].append(is_found)
    print("found of the drawn (from the second table on: contrast of at least 1/3 of the range)")
    for (kind, value), hits in sorted(found.items(), key=str):
        print(f"  {kind:42} {value!s:20} {np.mean(hits):6.1%} of {len(hits)}")


def _slices(folder: Path) -> None:
    """Slices are looked at only where something made them later; here all are, to have enough."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for modality, plane in _read_slices(folder):
        counts[modality].append(has_text_like_regions(plane[None], modality) is not None)
    for modality, held in sorted(counts.items()):
        print(f"{modality} slices (all, not only those at risk): {sum(held)} of {len(held)} are held")


def _phantom(n_per_site: int = 12) -> None:
    """Slices of the digital phantom as they are, and with a name in the largest stored value."""
    cohorts = default_cohorts()
    studies = [study for site in cohorts for study in draw_studies(site, 1, 0, cohorts)[:n_per_site]]
    planes = [plane for study in studies for plane in render(study, 0).voxels]
    n_held = sum(has_text_like_regions(plane[None], "CT") is not None for plane in planes)
    drawn = [draw_text(plane, "Muster", font_of(None, 11), 3071, (2, 2)).plane for plane in planes]
    n_found = sum(has_text_like_regions(plane[None], "CT") is not None for plane in drawn)
    print(f"phantom CT slices of {planes[0].shape}: {n_held} of {len(planes)} are held; with a name {n_found}")


def _read_slices(folder: Path) -> Iterator[tuple[str, Plane]]:
    import pydicom

    warnings.filterwarnings("ignore", module="pydicom")
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        if not may_be_dicom(file.read_bytes()[:132]):
            continue
        scan = pydicom.dcmread(file)
        if "PixelData" not in scan or scan.SamplesPerPixel != 1:
            continue
        for plane in scan.pixel_array.reshape(-1, scan.Rows, scan.Columns):
            yield scan.Modality, plane


def _speed() -> None:
    """One radiograph of 2,000 x 2,000, 12 bits: smooth with noise, and pure noise as the worst case."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:2000, :2000] / 2000
    smooth = 2000 + 1500 * np.sin(3 * x) * np.cos(4 * y) + rng.normal(0, 30, (2000, 2000))
    for name, plane in (("smooth", smooth), ("pure noise", rng.integers(0, 4096, (2000, 2000)))):
        stored = plane.astype(np.uint16)[None]
        times_ms = []
        for _ in range(7):
            start = time.perf_counter()
            has_text_like_regions(stored, "DX")
            times_ms.append((time.perf_counter() - start) * 1e3)
        print(f"2,000 x 2,000, 12 bits, {name}: {np.median(times_ms):.1f} ms")


def _save(folder: Path | None, name: str, planes: list[Plane], held: list[Suspicion | None]) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number, (plane, found) in enumerate(zip(planes, held, strict=True)):
        if found is not None:
            top, bottom, left, right = found.line.box
            around = plane[max(0, top - 30) : bottom + 30, max(0, left - 50) : right + 50]
            Image.fromarray(around).save(folder / f"{name}-{number}.png")


if __name__ == "__main__":
    main()
