"""How much pixels scatter that should be equal."""

import math
from collections.abc import Mapping

import numpy as np

from platform_core.features.contract import Family, in_both_units
from platform_core.features.slices import MIN_VOXELS, Slices


def measure_noise(slices: Slices) -> Mapping[str, float | None]:
    """Three estimates of the noise SD; each is non-negative and grows with noise.

    immerkaer: sqrt(pi/2)/6 times the mean of |I * N| over pixels whose eight neighbours are foreground too,
        N = [1 -2 1; -2 4 -2; 1 -2 1]; the median over slices.
    haar: median of |HH1| over 0.6745, HH1 the diagonal band of one Haar step over blocks that lie in the
        foreground; edges move it less.
    air: 1.4826 times the median absolute deviation of air outside the body in CT, 1.53 times its SD in others (their
        magnitude is Rayleigh distributed). None where the scanner cuts air off or fills it in, or shows too
        little of it.

    Both of the first assume white noise: a sharper or softer kernel moves them as dose does. All three are of
    one voxel: white noise falls with the square root of its volume. HU for CT, others as a ratio to the
    foreground's median.

    Source:
        Immerkaer 1996, Comput. Vis. Image Underst. 64(2):300-302, doi:10.1006/cviu.1996.0060;
        Donoho & Johnstone 1994, Biometrika 81(3):425-455, doi:10.1093/biomet/81.3.425;
        Dietrich et al. 2007, J. Magn. Reson. Imaging 26(2):375-385, doi:10.1002/jmri.20969.
    """
    if slices.image is None or slices.scale is None:
        return {}
    estimates = {"immerkaer": _immerkaer(slices), "haar": slices.haar_sd, "air": slices.air_sd}
    return {f"noise_{name}_{slices.unit}": None if sd is None else sd / slices.scale for name, sd in estimates.items()}


def _immerkaer(slices: Slices) -> float | None:
    rows = slices.voxels[:, :, 2:] - 2 * slices.voxels[:, :, 1:-1] + slices.voxels[:, :, :-2]
    response = np.abs(rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2])
    means = [
        float(response[n][inside].mean(dtype=np.float64))
        for n, inside in enumerate(slices.interior)
        if np.count_nonzero(inside) >= MIN_VOXELS
    ]
    return math.sqrt(math.pi / 2) / 6 * float(np.median(means)) if means else None


NOISE = Family(
    name="noise",
    features=(
        *in_both_units("noise_immerkaer", "acquisition", "noise SD by Immerkaer's mask"),
        *in_both_units("noise_haar", "acquisition", "noise SD by the diagonal Haar band"),
        *in_both_units("noise_air", "acquisition", "noise SD in air outside the body"),
    ),
    measure=measure_noise,
)
