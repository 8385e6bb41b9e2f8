"""A small world with a known truth: digital patients, a scanner, a reader of scans.

Patients are those of `platform_core.phantom` with a lesion of our own: formulas in mm and HU, of which a scan of
any blur, spacing and noise is known in closed form. A positive has a lesion whose size and contrast grow with its
severity; one negative in three has a small bright spot that is none. Only simulated: Gaussian blur, stationary
noise of Gaussian grain, bodies of 62 by 50 mm, one lesion. Scans of one scanner differ from each other as `HABIT`
says; patients are independent. Same arguments, same scan.
"""

from dataclasses import dataclass, replace

import numpy as np

from platform_core.imaging.volume import Volume
from platform_core.phantom.acquire import AIR_HU, FLOOR_HU, Acquisition, acquire
from platform_core.phantom.anatomy import Anatomy, draw_anatomy
from tests.benchmarks.detection.operators import NO_OPERATOR, SCANNER_OPERATORS, ScannerOperator, field_of

MODALITY = "CT"
SEED = 20_261_123
NATIVE = Acquisition(
    spacing_mm=(1.25, 1.25, 1.5), size=(60, 60, 24), psf_sigma_mm=0.8, noise_hu=14.0, noise_grain_mm=0.6
)
SHARE_POSITIVE = 0.40
"""Of the pool, from which samples of any prevalence are drawn."""
MIMICS = 1 / 3
"""Negatives with a small bright spot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """By how much scans of one unchanged scanner differ: standard deviations.

    Wide enough that ordinary tests of single features need about as many scans as published: with narrower ones
    25 scans showed every change to every method. The method under test had no part in the choice.
    """

    noise_log: float = 0.065
    """Patients absorb otherwise, and tube current follows them only so far."""
    psf_log: float = 0.15
    grain_log: float = 0.08
    spacing_log: float = 0.032
    """The field of view follows the patient."""
    gain: float = 0.003
    offset_hu: float = 2.0
    """Between two calibrations."""
    field: float = 0.03
    """Of ln of a smooth field in plane, itself another one from scan to scan."""
    muscle_hu: float = 4.0
    """Of a patient's muscle, beside what `draw_anatomy` gives."""


HABIT = Habit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One person, by number."""

    number: int
    y: float
    """1 with a lesion, 0 without."""
    severity: float
    """Of the lesion or of what looks like one, [0, 1]; 0 where there is nothing."""
    anatomy: Anatomy


def draw_patient(number: int) -> Patient:
    """The patient of this number."""
    rng = np.random.default_rng([SEED, number])
    anatomy = draw_anatomy("benign", rng)
    y = float(rng.random() < SHARE_POSITIVE)
    severity = float(rng.random()) if y or rng.random() < MIMICS else 0.0
    muscle, *others = anatomy.inner
    softer = replace(muscle, step_hu=muscle.step_hu + HABIT.muscle_hu * float(np.clip(rng.standard_normal(), -3, 3)))
    anatomy = replace(anatomy, inner=(softer, *others))
    return Patient(number=number, y=y, severity=severity, anatomy=_with_lesion(anatomy, y, severity))


def _with_lesion(anatomy: Anatomy, y: float, severity: float) -> Anatomy:
    """The first blob is the lesion: its place stays, its size and contrast follow severity."""
    blobs = anatomy.blobs
    peak, radius = blobs.peak_hu.copy(), blobs.radius_mm.copy()
    shape = radius[0] / radius[0].mean()
    if y:
        peak[0], radius[0] = 34 + 60 * severity, (1.7 + 1.6 * severity) * shape
    else:
        peak[0], radius[0] = 45 * (severity > 0), (1.0 + 0.8 * severity) * shape
    return replace(anatomy, blobs=replace(blobs, peak_hu=peak, radius_mm=radius))


def render(patient: Patient, operator: str = "none", strength: int = 0) -> Volume:
    """The scan of a patient on the scanner that an operator has changed: int16 HU, (z, y, x)."""
    change = NO_OPERATOR if operator == "none" else SCANNER_OPERATORS[operator]
    rng = np.random.default_rng([SEED, patient.number, _number(change), strength])
    acquisition = change.scan(_of_the_day(rng), strength)
    volume = acquire(patient.anatomy, acquisition, rng)
    n_x, n_y, _ = volume.size
    field = field_of(n_y, n_x, HABIT.field * abs(float(rng.standard_normal())), rng)
    voxels = change.image((volume.voxels - AIR_HU) * field + AIR_HU, strength, rng)
    return replace(volume, voxels=np.maximum(np.rint(voxels), FLOOR_HU).astype(np.int16))


def _of_the_day(rng: np.random.Generator) -> Acquisition:
    """The native scanner on one of its days."""
    draw = np.clip(rng.standard_normal(6), -3, 3)
    larger = float(np.exp(HABIT.spacing_log * draw[0]))
    x, y, z = NATIVE.spacing_mm
    return replace(
        NATIVE,
        spacing_mm=(x * larger, y * larger, z),
        noise_hu=NATIVE.noise_hu * float(np.exp(HABIT.noise_log * draw[1])),
        psf_sigma_mm=NATIVE.psf_sigma_mm * float(np.exp(HABIT.psf_log * draw[2])),
        noise_grain_mm=NATIVE.noise_grain_mm * float(np.exp(HABIT.grain_log * draw[3])),
        gain=1 + HABIT.gain * float(draw[4]),
        offset_hu=HABIT.offset_hu * float(draw[5]),
    )


def _number(operator: ScannerOperator) -> int:
    """What stands for an operator in a seed, whatever others there are."""
    return int.from_bytes(operator.name.encode(), "big")
