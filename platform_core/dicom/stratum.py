"""Strata: what may be compared at all. Everything here is a small table that a person can read."""

# ruff: noqa: SIM905 - lists of terms read better as words
import re
from collections.abc import Iterable

SMOOTH, SHARP, UNKNOWN = "smooth", "sharp", "unknown"

SMOOTH_KERNELS = ("STANDARD", "SOFT", "SMOOTH", "DETAIL", "STND")
SHARP_KERNELS = ("LUNG", "BONE", "EDGE", "ULTRA", "SHARP", "CHST", "BONEPLUS")
"""GE and generic names of reconstruction kernels."""
FIRST_SHARP_NUMBER = 50
"""Siemens names such as B31f or Br64d and Canon's FC50 grow sharper with their number; from about 50 on they are
edge-enhancing."""
LAST_SMOOTH_CANON = 29
PHILIPS_SMOOTH, PHILIPS_SHARP = frozenset("A B C UA UB UC".split()), frozenset("D E F L YA YB YC YD YE".split())

SHORT_TR_MS, LONG_TR_MS, SHORT_TE_MS, LONG_TE_MS = 900.0, 1800.0, 35.0, 60.0
"""Short and long TR and TE tell T1, proton-density and T2 weighting of spin echo (Bitar et al. 2006,
doi:10.1148/rg.262055063); the bounds are ours, with room between short and long."""


def stratum_of(
    modality: str, body_part: str | None, *, contrast: bool = False, sequence: str = "", kernel: str | None = None
) -> str:
    """Name the stratum, lower case: `modality/body part or any/contrast or sequence/kernel class`.

    The third place is the pulse sequence for MR, and for everything else whether contrast
    agent was given. Only CT has kernels; elsewhere the class is `unknown`.
    """
    third = sequence or "unknown" if modality.upper() == "MR" else "contrast" if contrast else "plain"
    last = kernel_class(kernel) if modality.upper() == "CT" else UNKNOWN
    return f"{modality}/{body_part or 'any'}/{third}/{last}".lower()


def kernel_class(kernel: str | None) -> str:
    """`smooth`, `sharp` or `unknown` for the convolution kernel of a CT."""
    name = (kernel or "").upper().split("+")[0].strip()
    if not name:
        return UNKNOWN
    if any(word in name for word in SHARP_KERNELS):
        return SHARP
    if any(word in name for word in SMOOTH_KERNELS):
        return SMOOTH
    if name in PHILIPS_SMOOTH | PHILIPS_SHARP:
        return SHARP if name in PHILIPS_SHARP else SMOOTH
    return _by_number(name)


def sequence_class(scanning: Iterable[str], repetition_ms: float | None, echo_ms: float | None) -> str:
    """The family of an MR pulse sequence: `ep`, `ir`, `gr`, `se_t1`, `se_pd`, `se_t2`, `se` or `unknown`.

    Taken from ScanningSequence and timing, never from a description that a person typed.
    """
    found = {word.upper() for word in scanning}
    for family, words in (("ep", {"EP"}), ("ir", {"IR"}), ("gr", {"GR", "GRADIENT"})):
        if found & words:
            return family
    if not found & {"SE", "SPIN"}:
        return UNKNOWN
    return _spin_echo(repetition_ms, echo_ms)


def _spin_echo(repetition_ms: float | None, echo_ms: float | None) -> str:
    if repetition_ms is None or echo_ms is None:
        return "se"
    if repetition_ms <= SHORT_TR_MS and echo_ms <= SHORT_TE_MS:
        return "se_t1"
    if repetition_ms >= LONG_TR_MS:
        return "se_t2" if echo_ms >= LONG_TE_MS else "se_pd"
    return "se"


def _by_number(name: str) -> str:
    found = re.match(r"(FC|[A-Z]{1,2})(\d{2})", name)
    if found is None:
        return UNKNOWN
    family, digits = found.group(1), int(found.group(2))
    if family == "FC":
        return SMOOTH if digits <= LAST_SMOOTH_CANON else SHARP if digits >= FIRST_SHARP_NUMBER else UNKNOWN
    return SHARP if digits >= FIRST_SHARP_NUMBER else SMOOTH
