from typing import Any

import pytest

from platform_core.dicom.stratum import kernel_class, sequence_class, stratum_of


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("B31f", "smooth"),
        ("B70f", "sharp"),
        ("Br40d+3", "smooth"),
        ("Bl57d", "sharp"),
        ("STANDARD", "smooth"),
        ("LUNG", "sharp"),
        ("BONEPLUS", "sharp"),
        ("FC08", "smooth"),
        ("FC51", "sharp"),
        ("FC35", "unknown"),
        ("C", "smooth"),
        ("YB", "sharp"),
        ("Q9", "unknown"),
        (None, "unknown"),
    ],
)
def test_kernels_are_smooth_sharp_or_unknown(kernel: Any, expected: Any) -> None:
    assert kernel_class(kernel) == expected


@pytest.mark.parametrize(
    ("scanning", "repetition_ms", "echo_ms", "expected"),
    [
        (["SE"], 500, 20, "se_t1"),
        (["SE"], 2000, 80, "se_t2"),
        (["SE"], 4000, 12, "se_pd"),
        (["SE"], 1200, 20, "se"),
        (["SE"], None, None, "se"),
        (["SE", "IR"], 6000, 394, "ir"),
        (["EP", "GR"], 2500, 28, "ep"),
        (["RM"], 1, 1, "unknown"),
    ],
)
def test_sequences_are_told_by_physics(scanning: Any, repetition_ms: Any, echo_ms: Any, expected: Any) -> None:
    assert sequence_class(scanning, repetition_ms, echo_ms) == expected


def test_the_stratum_has_four_places() -> None:
    assert stratum_of("CT", "CHEST", contrast=True, kernel="B31f") == "ct/chest/contrast/smooth"
    assert stratum_of("MR", None, sequence="se_t1", kernel="B31f") == "mr/any/se_t1/unknown"
    assert stratum_of("DX", "CHEST") == "dx/chest/plain/unknown"
