"""Which part of the work a patient belongs to; it never changes as data grow.

The part depends on the patient's key alone, so all studies of a patient, at every site
that shares its issuer, stay on one side.
"""

from typing import Literal

from platform_core.provenance import number_of
from platform_core.settings import SplitSettings

Part = Literal["train", "validation", "evaluation"]


def part_of(patient_key: str, split: SplitSettings) -> Part:
    """The part of one patient: a uniform hash of the key against the shares of the settings."""
    number = number_of(f"split/{patient_key}") / 2**64
    if number < split.evaluation:
        return "evaluation"
    return "validation" if number < split.evaluation + split.validation else "train"
