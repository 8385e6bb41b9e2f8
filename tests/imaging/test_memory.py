"""Bytes and workers are shared out, and never more than there are."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from platform_core.errors import UnreadableScan
from platform_core.imaging.memory import Budget


def test_never_more_is_held_than_the_budget_has() -> None:
    budget, lock = Budget(100, 3), threading.Lock()
    held, most, n_most = [0, 0], 0, 0

    def work(n_bytes: int) -> None:
        nonlocal most, n_most
        with budget.room(n_bytes):
            with lock:
                held[0] += n_bytes
                held[1] += 1
                most, n_most = max(most, held[0]), max(n_most, held[1])
            time.sleep(0.002)
            with lock:
                held[0] -= n_bytes
                held[1] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 60, 10, 100, 45, 5, 5, 5, 5, 80] * 5))
    assert 60 < most <= 100
    assert 1 < n_most <= 3
    assert held == [0, 0]


def test_what_is_held_is_given_back_after_a_failure() -> None:
    budget = Budget(10, 1)
    for _ in range(3):
        with pytest.raises(KeyError), budget.room(10):
            raise KeyError
    with budget.room(10):
        pass


def test_a_scan_that_no_budget_would_hold_is_refused_at_once() -> None:
    with pytest.raises(UnreadableScan, match="SITEDRIFT_MEMORY_GIB") as refused, Budget(2**30, 1).room(2**31):
        pass
    assert refused.value.reason == "memory_budget"
