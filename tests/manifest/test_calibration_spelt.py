"""A calibration is told so that two that answer differently read differently."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.manifest.serving import Calibration, log_odds


def calibration(prevalence: float, *, offset: float | None = None, scale: float = 1.0) -> Calibration:
    at = log_odds(prevalence) if offset is None else offset
    return Calibration(logit_offset=at, prevalence=prevalence, threshold=0.5, scale=scale)


def test_where_the_prevalence_says_all_nothing_else_is_told() -> None:
    assert calibration(0.31).spelt == "prevalence 0.31"


def test_a_fitted_scale_or_offset_is_told_with_it() -> None:
    assert calibration(0.31, offset=-2.0, scale=0.4).spelt == "prevalence 0.31, scale 0.40, offset -2.00"
    assert calibration(0.31, scale=0.4).spelt == f"prevalence 0.31, scale 0.40, offset {math.log(31 / 69):.2f}"
    assert calibration(0.31, offset=-2.0).spelt == "prevalence 0.31, scale 1.00, offset -2.00"


def test_a_rare_disease_is_not_told_as_absent() -> None:
    assert calibration(0.0042).spelt == "prevalence 0.0042"


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=30))
def test_however_often_the_prior_moved_rounding_makes_no_offset(prevalences: list[float]) -> None:
    found = calibration(0.5)
    for prevalence in prevalences:
        found = found.moved_to(prevalence)
    assert found.spelt == f"prevalence {prevalences[-1]:.3g}"


@pytest.mark.parametrize("offset", [1e-6, -1e-6])
def test_an_offset_that_is_no_rounding_is_told(offset: float) -> None:
    assert "offset" in calibration(0.5, offset=offset).spelt
