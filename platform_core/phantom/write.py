"""Studies as the scanners would send them: DICOM files, and the readers' labels beside them."""

import csv
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from platform_core.imaging.volume import Volume
from platform_core.phantom.acquire import acquire
from platform_core.phantom.anatomy import draw_anatomy
from platform_core.phantom.cohort import Cohorts, Study, default_cohorts, draw_studies, site_number
from platform_core.phantom.dicom import series_uid, write_scan

DOSE_SD = 0.2
"""Standard deviation of ln(noise) over patients of one scanner: size and dose differ."""
N_PROCESSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """The truth about one month: what every verdict can be held against."""

    n_scans: dict[str, int]
    prevalence: dict[str, float]
    """Share of malignant lesions among the patients drawn."""
    label_files: dict[str, Path]


def write_month(folder: Path, *, month: int, seed: int, cohorts: Cohorts | None = None) -> Month:
    """Write every site's scans of one month under `folder/<site>/month<k>`, and its labels under `folder/labels`.

    Args:
        folder: Where it goes.
        month: 1, 2, ...
        seed: Same seed, same bytes.
        cohorts: Sizes, prevalences and scanners; by default the demo's story.
    """
    plan = cohorts or default_cohorts()
    studies = {site: draw_studies(site, month, seed, plan) for site in plan}
    every = [study for of_site in studies.values() for study in of_site]
    # `spawn`: a fork would copy the locks of whatever threads the caller runs
    with ProcessPoolExecutor(N_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(_write_study, folder, seed), every, chunksize=16))
    return Month(
        n_scans={site: len(of_site) for site, of_site in studies.items()},
        prevalence={site: _prevalence(of_site) for site, of_site in studies.items()},
        label_files={site: _write_labels(folder, site, month, seed, of_site) for site, of_site in studies.items()},
    )


def render(study: Study, seed: int) -> Volume:
    """What the scanner sees: int16 HU, (z, y, x); a patient's anatomy is the same at every visit."""
    anatomy = draw_anatomy(study.lesion, np.random.default_rng([seed, site_number(study.site), study.patient]))
    place = [seed, site_number(study.site), study.patient, study.month, study.visit]
    rng = np.random.default_rng([*place, 1])
    protocol = study.scanner.acquisition
    noise_hu = protocol.noise_hu * float(np.exp(DOSE_SD * rng.standard_normal()))
    return acquire(anatomy, replace(protocol, noise_hu=noise_hu), rng)


def _write_study(folder: Path, seed: int, study: Study) -> None:
    name = f"p{study.patient:06d}v{study.visit}"
    write_scan(folder / study.site / f"month{study.month}" / name, study, render(study, seed), seed)


def _prevalence(studies: Sequence[Study]) -> float:
    lesions = {study.patient: study.lesion for study in studies}
    return sum(lesion == "malignant" for lesion in lesions.values()) / max(len(lesions), 1)


def _write_labels(folder: Path, site: str, month: int, seed: int, studies: Sequence[Study]) -> Path:
    file = folder / "labels" / f"{site}-month{month}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["series_uid", "value", "reader", "guideline", "labelled_on"])
        for study in studies:
            rows.writerow([series_uid(study, seed), study.lesion, f"reader-{site}", "phantom-1", study.scanned_on])
    return file
