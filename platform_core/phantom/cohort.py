"""Who comes when: patients with several studies, a class each, at three sites over two months.

Identities are invented and look real, so that de-identification has something to remove.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from platform_core.phantom.anatomy import Lesion
from platform_core.phantom.vendors import EAST, NORTH, WEST, WEST_NEW, Scanner

FIRST_DAY = date(2026, 1, 5)
"""A Monday."""
MONTH_DAYS = 28
SECOND_STUDY, RETURNING = 0.15, 0.2
"""Share of a month's patients with two studies in it; share of later months' patients who came before."""
FAMILY = ("Abel", "Berg", "Costa", "Dietz", "Engel", "Ferro", "Gruber", "Haas", "Iyer", "Jansen", "Klein", "Lorca")
GIVEN = ("Ada", "Bruno", "Clara", "Dario", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karla", "Leo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """One site in one month."""

    n_patients: int
    prevalence: float
    """Share of malignant lesions."""
    scanner: Scanner


Cohorts = dict[str, tuple[Cohort, ...]]
"""Per site, one cohort per month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One visit of one patient."""

    site: str
    month: int
    patient: int
    """Number of the patient at the site; the same anatomy every time."""
    visit: int
    """0, 1 within the month."""
    lesion: Lesion
    scanned_on: date
    scanner: Scanner


def default_cohorts(scale: float = 1.0) -> Cohorts:
    """The demo's story: east's prevalence moves in month 2, west gets a new scanner, north stays as it is.

    Args:
        scale: Cohort sizes relative to about 200 patients per site and month (420 for the source in month 1).
    """

    def sized(n: int, prevalence: float, scanner: Scanner) -> Cohort:
        return Cohort(n_patients=max(20, round(n * scale)), prevalence=prevalence, scanner=scanner)

    return {
        "north": (sized(420, 0.30, NORTH), sized(200, 0.30, NORTH)),
        "east": (sized(200, 0.30, EAST), sized(200, 0.65, EAST)),
        "west": (sized(200, 0.30, WEST), sized(260, 0.30, WEST_NEW)),
    }


def draw_studies(site: str, month: int, seed: int, cohorts: Cohorts) -> list[Study]:
    """Every study of one site and month (1, 2, ...); same arguments, same studies."""
    known: dict[Lesion, list[int]] = {"benign": [], "malignant": []}
    studies: list[Study] = []
    for number, cohort in enumerate(cohorts[site][:month], start=1):
        rng = np.random.default_rng([seed, site_number(site), number])
        studies = _draw_month(site, number, cohort, known, rng)
        for study in studies:
            if study.patient not in known[study.lesion]:
                known[study.lesion].append(study.patient)
    return studies


def site_number(site: str) -> int:
    """A number that stands for the site's name in a seed."""
    return int.from_bytes(site.encode(), "big")


def identity(site: str, patient: int) -> dict[str, str]:
    """Who a patient is at the hospital: DICOM keywords and invented values."""
    rng = np.random.default_rng([site_number(site), patient])
    born = date(1935, 1, 1) + timedelta(days=int(rng.integers(0, 60 * 365)))
    family, given = FAMILY[int(rng.integers(len(FAMILY)))], GIVEN[int(rng.integers(len(GIVEN)))]
    return {
        "PatientName": f"{family}^{given}",
        "PatientID": f"{site[:2].upper()}{patient:06d}",
        "PatientBirthDate": f"{born:%Y%m%d}",
        "PatientSex": "FM"[int(rng.integers(2))],
    }


def _draw_month(
    site: str, month: int, cohort: Cohort, known: dict[Lesion, list[int]], rng: np.random.Generator
) -> list[Study]:
    n_before = sum(len(numbers) for numbers in known.values())
    back = {lesion: [numbers[i] for i in rng.permutation(len(numbers))] for lesion, numbers in known.items()}
    studies = []
    for n in range(cohort.n_patients):
        lesion: Lesion = "malignant" if rng.uniform() < cohort.prevalence else "benign"
        is_back = rng.uniform() < RETURNING and bool(back[lesion])
        patient = back[lesion].pop() if is_back else n_before + n
        for visit in range(1 + int(rng.uniform() < SECOND_STUDY)):
            day = FIRST_DAY + timedelta(days=MONTH_DAYS * (month - 1) + int(rng.integers(MONTH_DAYS)))
            studies.append(
                Study(
                    site=site,
                    month=month,
                    patient=patient,
                    visit=visit,
                    lesion=lesion,
                    scanned_on=day,
                    scanner=cohort.scanner,
                )
            )
    return studies
