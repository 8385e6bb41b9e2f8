"""What a promise costs: the formula of the status line, held against the nightly check itself."""

from dataclasses import replace

import numpy as np
import pytest

from platform_core.shift.watch.power import (
    Promise,
    false_alarms_per_year,
    false_signals_per_year,
    simulated_delays,
    smallest_shift,
)

USUAL = Promise(alpha=0.05, n_features=8, n_reference=1000, n_before=1000)


@pytest.mark.parametrize("n_scans", [100, 300, 1000])
@pytest.mark.parametrize(
    "promise",
    [USUAL, Promise(alpha=0.05, n_features=30, n_reference=300, n_before=500, n_opened=2)],
    ids=["usual", "hard"],
)
def test_the_smallest_shift_is_found_about_as_often_as_stated(promise: Promise, n_scans: int) -> None:
    shift = smallest_shift(n_scans, promise, power=0.8)
    assert shift is not None
    delays = simulated_delays(shift, promise, n_after=n_scans, n_streams=60, seed=n_scans)
    assert 0.65 <= np.isfinite(delays).mean() <= 1


def test_half_of_the_smallest_shift_is_mostly_not_found() -> None:
    shift = smallest_shift(300, USUAL, power=0.8)
    assert shift is not None
    delays = simulated_delays(shift / 2, USUAL, n_after=300, n_streams=60, seed=1)
    assert np.isfinite(delays).mean() < 0.2


@pytest.mark.parametrize(
    "harder",
    [
        replace(USUAL, n_features=80),
        replace(USUAL, alpha=0.01),
        replace(USUAL, n_opened=5),
        replace(USUAL, n_reference=100, n_before=0),
    ],
    ids=["more features", "less alpha", "opened before", "small pool"],
)
def test_a_harder_promise_needs_a_larger_shift(harder: Promise) -> None:
    assert (smallest_shift(300, harder) or 9.0) > (smallest_shift(300, USUAL) or 0.0)


def test_more_scans_reveal_less() -> None:
    found = [smallest_shift(n, USUAL) or 9.0 for n in (50, 100, 200, 400, 800)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.3


def test_a_handful_of_scans_reveals_nothing() -> None:
    assert smallest_shift(5, USUAL) is None


def test_a_reference_of_ten_soon_is_the_shift_itself() -> None:
    """Why a reference should be large: what is shifted from the first scan is absorbed by its own pool."""
    small = replace(USUAL, n_reference=10, n_before=0)
    assert (smallest_shift(1000, small) or 9.0) > 2 * (smallest_shift(1000, USUAL) or 9.0)


def test_a_year_has_no_more_false_alarms_than_the_promise_for_ever() -> None:
    assert false_alarms_per_year(0.05, n_sites=20) == 1.0


def test_signals_are_counted_in_blocks() -> None:
    assert false_signals_per_year(25 * 500) == 0.5


def test_a_simulation_can_be_repeated() -> None:
    one, other = (simulated_delays(0.5, USUAL, n_after=300, n_streams=5, seed=3) for _ in range(2))
    assert one.tolist() == other.tolist()
