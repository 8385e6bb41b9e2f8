"""Noise in labels is how often readers of the same series, by the same guideline, disagree."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core import layout
from platform_core.manifest.agreement import cohen_kappa, label_noise, reader_pairs
from platform_core.manifest.labels import ADJUDICATOR
from platform_core.manifest.schemas import LABEL
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of


def write(
    workspace: Workspace, readings: Sequence[tuple[str, str | None, str]], *, run: str = "r1", **facts: str
) -> None:
    rows = [
        {"site": "north", "target": "lesion", "series_key": key, "reader": reader, "value": value, "run": run, **facts}
        for key, reader, value in readings
    ]
    workspace.lake.append(layout.LABEL, rows_of(LABEL, rows), transaction=f"{run}/{facts}")


def test_without_a_second_reading_nobody_knows(workspace: Workspace) -> None:
    assert label_noise(workspace, "lesion", "north") is None
    write(workspace, [("a", "A", "1"), ("b", "B", "0")])
    write(workspace, [("a", "A", "0")], run="r2")
    assert label_noise(workspace, "lesion", "north") is None


def test_the_share_of_series_on_which_readers_differ(workspace: Workspace) -> None:
    write(workspace, [(f"s{i}", reader, "1") for i in range(17) for reader in "AB"])
    write(workspace, [(f"t{i}", reader, "01"[reader == "A"]) for i in range(3) for reader in "AB"], run="r2")
    write(workspace, [("alone", "A", "1")], run="r3")
    found = label_noise(workspace, "lesion", "north")
    assert found is not None
    assert (found.value, found.n) == (0.15, 20)
    # Wilson's interval of 3 in 20, as tables give it
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3604), abs=1e-3)
    assert label_noise(workspace, "lesion", "south") is None


def test_an_adjudicated_series_was_still_read_two_ways(workspace: Workspace) -> None:
    write(workspace, [("a", "A", "1"), ("a", "B", "0"), ("a", ADJUDICATOR, "1")])
    found = label_noise(workspace, "lesion", "north")
    assert found is not None
    assert (found.value, found.n) == (1.0, 1)


def test_readings_by_an_earlier_guideline_are_no_disagreement(workspace: Workspace) -> None:
    write(workspace, [("a", "A", "1"), ("a", "B", "1")], guideline="old")
    write(workspace, [("a", "C", "0"), ("a", "D", "0")], run="r2", guideline="new")
    found = label_noise(workspace, "lesion", "north")
    assert found is not None
    assert (found.value, found.n) == (0.0, 1)


def test_two_rows_of_one_unnamed_reader_that_differ_are_two_readings(workspace: Workspace) -> None:
    write(workspace, [("a", None, "1"), ("a", None, "0")])
    found = label_noise(workspace, "lesion", "north")
    assert found is not None
    assert (found.value, found.n) == (1.0, 1)


def test_pairs_of_readers_are_told_with_their_kappa(workspace: Workspace) -> None:
    write(workspace, [(f"s{i}", reader, str(i % 2)) for i in range(10) for reader in "AB"])
    write(workspace, [("s0", "C", "1"), ("s1", "C", "1")], run="r2")
    first, *others = reader_pairs(workspace, "lesion", "north")
    assert (first.readers, first.n, first.n_differ, first.kappa) == (("A", "B"), 10, 0, 1.0)
    assert [(pair.n, pair.n_differ, pair.kappa) for pair in others] == [(2, 1, 0.0)] * 2


VALUES = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40))
def test_kappa_agrees_with_its_table(readings: list[tuple[str, str]]) -> None:
    table = np.zeros((3, 3))
    for one, other in readings:
        table["abc".index(one), "abc".index(other)] += 1 / len(readings)
    by_chance = float(table.sum(axis=0) @ table.sum(axis=1))
    if by_chance > 1 - 1e-9:
        assert cohen_kappa(readings) is None
    else:
        assert cohen_kappa(readings) == pytest.approx((np.trace(table) - by_chance) / (1 - by_chance))
