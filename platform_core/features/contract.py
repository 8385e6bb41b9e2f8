"""What every family of per-scan measurements promises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from platform_core.imaging.volume import Volume, Voxels

Bank = Literal["acquisition", "content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One number per scan.

    `name` carries the unit as its suffix. `bank` says what moves it: the way a scan was
    made (acquisition: noise, sharpness, spacing) or what is in it (content). Acquisition
    features tell a new scanner from new patients.
    """

    name: str
    unit: str
    bank: Bank
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One file: features that are computed together.

    Contract: `measure` gets a still volume, its foreground mask (z, y, x) of booleans and
    the modality; it returns each of its features, or None where it cannot be told (no
    spacing, too few voxels); never NaN or infinity.
    """

    name: str
    features: tuple[Feature, ...]
    measure: Callable[[Volume, Voxels, str], Mapping[str, float | None]]
