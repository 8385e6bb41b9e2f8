"""How far tissues stand out from noise and from each other."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from platform_core.features.contract import Bank, Family, Feature
from platform_core.features.scatter import NORMAL_MAD
from platform_core.features.slices import MAX_SAMPLE, MIN_VOXELS, Floats, Slices
from platform_core.imaging.foreground import evenly, otsu_threshold

SOFT_HU = (-200.0, 200.0)
"""Fat and soft tissue with their noise; bone and lung would pull the split to themselves."""
TAILS = (0.01, 0.99)
SKIN_MM = 3.0
"""Blur makes a tissue of its own there."""
AIR_HU = -1000.0


@dataclass(frozen=True, slots=True)
class Tissue:
    """One of the two classes that the foreground falls into."""

    level: float
    sd: float
    n: int


def measure_contrast(slices: Slices) -> Mapping[str, float | None]:
    """Signal and contrast against noise, of the two tissues that Otsu's threshold splits the foreground into.

    The foreground is taken 3 mm and more inside its edge (3 pixels in plain images), from -200 to 200 HU in CT, from
    its 1 % to its 99 % quantile in others. The main tissue is the larger class; a level is a median, an SD 1.4826 times
    the median absolute deviation. All are ratios without a unit, not negative.

    tissue_snr_ratio: level of the main tissue over its SD; in CT above air (HU + 1000), as water has no HU. Falls
        with noise, and with texture.
    tissue_snr_air_ratio (not CT): level of the main tissue over 1.53 times the SD of air. Falls with noise alone.
        None where air was filled in.
    tissue_cnr_ratio: difference of the two levels over the noise SD (the diagonal Haar band, as air is often cut
        off). Grows with contrast, falls with noise.
    tissue_cjv_ratio: sum of the two SDs over the difference of the levels: the coefficient of joint variation. Grows
        with noise, and with inhomogeneity; falls with contrast.

    All but the last are of one voxel: where noise is white, they grow with the square root of its volume.

    Source:
        Dietrich et al. 2007, doi:10.1002/jmri.20969 (1.53); Ganzetti, Wenderoth & Mantini 2016,
        doi:10.3389/fninf.2016.00010 (joint variation); as measures of quality in MRIQC: Esteban et al. 2017,
        doi:10.1371/journal.pone.0184661.
    """
    values = _inner_values(slices)
    split = None if values is None else _split(values, is_ct=slices.modality == "CT")
    if split is None or slices.scale is None:
        return {}
    dark, bright = split
    main = dark if dark.n > bright.n else bright
    apart = bright.level - dark.level
    signal = main.level - (AIR_HU if slices.modality == "CT" else 0.0)
    told = {
        "tissue_snr_ratio": _ratio(signal, main.sd),
        "tissue_cnr_ratio": _ratio(apart * slices.scale, slices.haar_sd),
        "tissue_cjv_ratio": _ratio(dark.sd + bright.sd, apart),
    }
    if slices.modality == "CT":
        return told
    return told | {"tissue_snr_air_ratio": _ratio(signal * slices.scale, slices.air_sd)}


def _inner_values(slices: Slices) -> Floats | None:
    """At most 200 000 values of pixels that have foreground 3 mm away to all four sides, in the unit of features."""
    if slices.image is None:
        return None
    x_mm, y_mm = (1.0, 1.0) if slices.geometry is None else slices.geometry.spacing_mm[:2]
    across, along = (
        min(max(1, round(SKIN_MM / mm)), n // 2) for mm, n in ((y_mm, slices.size[1]), (x_mm, slices.size[0]))
    )
    rows, mask = slice(across, -across), slices.foreground
    inner = mask[:, rows, : -2 * along] & mask[:, rows, 2 * along :]
    inner &= mask[:, : -2 * across, along:-along] & mask[:, 2 * across :, along:-along]
    return evenly(slices.image[:, rows, along:-along][inner], MAX_SAMPLE)


def _split(values: Floats, *, is_ct: bool) -> tuple[Tissue, Tissue] | None:
    if values.size < MIN_VOXELS:
        return None
    low, high = SOFT_HU if is_ct else np.quantile(values, TAILS)
    kept = values[(values >= low) & (values <= high)]
    threshold = otsu_threshold(kept) if kept.size >= MIN_VOXELS else None
    if threshold is None:
        return None
    dark, bright = kept[kept <= threshold], kept[kept > threshold]
    return (_tissue(dark), _tissue(bright)) if dark.size and bright.size else None


def _tissue(values: Floats) -> Tissue:
    level = float(np.median(values))
    return Tissue(level, float(np.median(np.abs(values - level))) / NORMAL_MAD, values.size)


def _ratio(above: float, below: float | None) -> float | None:
    return above / below if below else None


def _feature(name: str, bank: Bank, meaning: str) -> Feature:
    return Feature(name=name, unit="1", bank=bank, meaning=meaning)


CONTRAST = Family(
    name="contrast",
    features=(
        _feature("tissue_snr_ratio", "acquisition", "mean of the main tissue over its SD"),
        _feature("tissue_snr_air_ratio", "acquisition", "mean of the main tissue over the noise of air; not CT"),
        _feature("tissue_cnr_ratio", "acquisition", "difference of two tissues over the noise SD"),
        _feature("tissue_cjv_ratio", "acquisition", "spread of two tissues over their difference"),
    ),
    measure=measure_contrast,
)
