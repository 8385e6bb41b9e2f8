"""Small tables made from the full collection of real scans, so that a clean clone holds their facts too.

    SITEDRIFT_TEST_DATA=DIR python -m tests.shift.real_data

writes what lies in `tests/data/derived`: chest radiographs as 7 x 7 means of their pixels, the platform's own features
of radiographs of two hospitals, and quality metrics of brain scans of 17 sites. Nothing else is made of them.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.features.measure import FEATURES, measure
from platform_core.imaging.plain import decode_image

Reals = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
DERIVED = Path(__file__).parents[1] / "data" / "derived"
N_SIDE = 7
"""Means per side of a radiograph: enough to tell pneumonia with an AUROC of .98."""
SPLITS = ("train", "val", "test")
HOSPITALS = {"NIH_CC": "nih", "HANNOVER_MHH": "hannover"}
METRICS = (
    "cjv",
    "cnr",
    "efc",
    "fwhm_avg",
    "inu_range",
    "qi_2",
    "snr_total",
    "snrd_total",
    "rpve_csf",
    "tpm_overlap_gm",
    "wm2max",
    "icvs_gm",
)
"""Of MRIQC, of the image alone: no size and no spacing, by which a protocol would be recognised at once."""


@dataclass(frozen=True, slots=True)
class Radiographs:
    """The first radiograph of every patient of one hospital."""

    y: Reals
    """1 pneumonia or COVID-19, 0 neither."""
    means: Reals
    """(patients, 49), [0, 1]."""
    features: tuple[str, ...]
    values: Reals
    """(patients, features), NaN where unknown."""


def pneumonia(split: str) -> tuple[Reals, Reals]:
    """Means, (images, 49) in [0, 1], and labels of one split of PneumoniaMNIST; one image per row, patients unknown."""
    kept = np.load(DERIVED / "pneumonia_7x7.npz")
    means, y = kept[split], kept[f"{split}_y"]
    return means.reshape(len(means), -1) / 255.0, y.astype(np.float64)


def radiographs(hospital: str) -> Radiographs:
    """Those of `nih` or `hannover`."""
    rows = [row for row in radiograph_table() if row["hospital"] == hospital]
    names = tuple(name for name in rows[0] if name in FEATURES)
    return Radiographs(
        y=np.array([float(row["y"]) for row in rows]),
        means=np.array([[int(pair, 16) for pair in _pairs(row["means_hex"])] for row in rows]) / 255.0,
        features=names,
        values=np.array([[float(row[name]) if row[name] else np.nan for name in names] for row in rows]),
    )


def radiograph_table() -> list[dict[str, str]]:
    """As it is kept: hospital, label, means as hexadecimal bytes, and features."""
    with (DERIVED / "radiographs.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def brain_quality() -> tuple[npt.NDArray[np.str_], Reals]:
    """Site, and `METRICS` of each scan, (scans, metrics); one scan per person."""
    return _brain_quality(DERIVED / "abide_quality.tsv")


def _brain_quality(file: Path) -> tuple[npt.NDArray[np.str_], Reals]:
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return np.array([row["site"] for row in rows]), np.array([[float(row[name]) for name in METRICS] for row in rows])


def means_of(pixels: npt.NDArray[Any]) -> Bytes:
    """Means of 7 x 7 equal tiles of a (y, x) image of bytes; rows and columns that do not fill a tile are left out."""
    height, width = (side // N_SIDE for side in pixels.shape)
    tiles = pixels[: height * N_SIDE, : width * N_SIDE].reshape(N_SIDE, height, N_SIDE, width)
    means: Bytes = np.rint(tiles.mean(axis=(1, 3))).astype(np.uint8)
    return means


def collection() -> Path | None:
    """The full collection, if `SITEDRIFT_TEST_DATA` says where it is."""
    root = os.environ.get("SITEDRIFT_TEST_DATA")
    return Path(root) if root and (Path(root) / "tables" / "mriqc_abide.tsv").is_file() else None


def pneumonia_means(root: Path) -> dict[str, Bytes]:
    """What `pneumonia_7x7.npz` holds, from the images."""
    images = np.load(root / "cxr/src_guangzhou_mnist/data/pneumoniamnist.npz")
    means = {split: np.stack([means_of(image) for image in images[f"{split}_images"]]) for split in SPLITS}
    return means | {f"{split}_y": images[f"{split}_labels"][:, 0].astype(np.uint8) for split in SPLITS}


def radiograph_rows(root: Path, every: int = 1) -> Iterator[dict[str, str]]:
    """What `radiographs.csv` holds, from the images; one patient in `every`."""
    with (root / "cxr/labels.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["site"] in HOSPITALS]
    first: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: row["file"]):
        first.setdefault(row["patient_id"], row)
    for row in list(first.values())[::every]:
        volume = decode_image((root / "cxr" / row["file"]).read_bytes())
        found = measure(volume, "DX")
        told = {name: "" if value is None else f"{value:.6g}" for name, value in found.items()}
        yield {
            "hospital": HOSPITALS[row["site"]],
            "y": row["label_pneumonia_or_covid"],
            "means_hex": means_of(volume.voxels[0]).tobytes().hex(),
            **told,
        }


def _pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(0, len(text), 2)]


def main() -> None:
    """Write the tables."""
    root = collection()
    if root is None:
        raise SystemExit("set SITEDRIFT_TEST_DATA to the full collection")
    DERIVED.mkdir(exist_ok=True)
    np.savez_compressed(DERIVED / "pneumonia_7x7.npz", allow_pickle=False, **pneumonia_means(root))
    rows = list(radiograph_rows(root))
    known = [name for name in rows[0] if any(row[name] for row in rows)]
    with (DERIVED / "radiographs.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, known, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    site, values = _brain_quality(root / "tables/mriqc_abide.tsv")
    with (DERIVED / "abide_quality.tsv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines, delimiter="\t", lineterminator="\n")
        table.writerow(["site", *METRICS])
        table.writerows([name, *(f"{x:.6g}" for x in row)] for name, row in zip(site, values, strict=True))


if __name__ == "__main__":
    main()
