"""What every family of per-scan measurements promises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from platform_core.features.slices import Slices

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

    Contract: `measure` gets slices and leaves them alone; it returns those of its features that it can
    tell, and leaves out (or gives None for) those it cannot: no spacing, too few voxels, another
    modality's unit; never NaN or infinity.
    """

    name: str
    features: tuple[Feature, ...]
    measure: Callable[[Slices], Mapping[str, float | None]]


def in_both_units(name: str, bank: Bank, meaning: str) -> tuple[Feature, Feature]:
    """An intensity feature as CT tells it, in HU, and as other modalities do, relative to the foreground's median."""
    return (
        Feature(name=f"{name}_hu", unit="HU", bank=bank, meaning=f"{meaning}; CT"),
        Feature(name=f"{name}_relative", unit="foreground median", bank=bank, meaning=f"{meaning}; not CT"),
    )
