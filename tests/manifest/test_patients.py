"""A corrected identity: what two identifiers came under is one patient for every reader."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_core import layout
from platform_core.errors import BadRequest, UnknownName
from platform_core.manifest.door import open_door
from platform_core.manifest.patients import MergeCount, kept_key, merge_patients
from platform_core.manifest.schemas import SERIES
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from platform_core.storage.tables import Lake, rows_of
from tests.conftest import Ingest, WriteCT

AT = datetime(2026, 3, 1, tzinfo=UTC)


def merge(workspace: Workspace, wrong: str, right: str, site: str = "north") -> MergeCount:
    return merge_patients(workspace, site, wrong, right, run="20260301T000000-test", at=AT)


def patients(workspace: Workspace, site: str = "north") -> list[str]:
    return [str(key) for key in current_series(workspace, site).column("patient_key").to_pylist()]


def key_of(workspace: Workspace, patient_id: str, issuer: str = "north") -> str:
    return open_door(workspace).patient_key(issuer, patient_id)


def ids_in(workspace: Workspace, part: str, n: int = 2) -> list[str]:
    """Identifiers whose own keys lie in one part of the split."""
    split = workspace.settings.split
    found = (f"P{i}" for i in range(10_000) if part_of(key_of(workspace, f"P{i}"), split) == part)
    return [next(found) for _ in range(n)]


def scans_of(write_ct: WriteCT, folder: Path, *patient_ids: str) -> None:
    for number, patient_id in enumerate(patient_ids):
        uid = f"1.2.826.0.1.99.{hash(patient_id) % 10**9}.{number}"
        write_ct(folder / f"s{uid}", SeriesInstanceUID=uid, StudyInstanceUID=f"{uid}.9", PatientID=patient_id)


def test_two_identifiers_become_one_patient_and_the_right_one_is_kept(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    wrong, right = ids_in(north, "train")
    scans_of(write_ct, folder, wrong, right)
    ingest(north)
    assert len(set(patients(north))) == 2
    count = merge(north, wrong, right)
    assert patients(north) == [key_of(north, right)] * 2
    assert (count.is_new, count.n_wrong, count.n_right, count.n_moved, count.was_split) == (True, 1, 1, 1, False)


def test_what_comes_later_under_the_wrong_identifier_is_seen_under_the_kept_patient(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    wrong, right = ids_in(north, "train")
    merge(north, wrong, right)
    scans_of(write_ct, folder, wrong)
    ingest(north)
    assert patients(north) == [key_of(north, right)]


def test_what_was_written_stays_as_it_is(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    wrong, right = ids_in(north, "train")
    scans_of(write_ct, folder, wrong, right)
    ingest(north)
    before = north.lake.read(layout.SERIES)
    merge(north, wrong, right)
    assert north.lake.read(layout.SERIES) == before


def test_the_same_merge_twice_writes_once(north: Workspace) -> None:
    wrong, right = ids_in(north, "train")
    assert merge(north, wrong, right).is_new
    versions = north.lake.versions()
    assert not merge(north, wrong, right).is_new
    assert not merge(north, right, wrong).is_new
    assert north.lake.versions() == versions


def test_a_chain_ends_at_one_patient(north: Workspace) -> None:
    a, b, c, d = ids_in(north, "train", 4)
    merge(north, a, b)
    merge(north, c, d)
    merge(north, b, c)
    assert {kept_key(north, key_of(north, name)) for name in (a, b, c, d)} == {key_of(north, d)}


def test_a_circle_of_merges_is_one_patient(north: Workspace) -> None:
    a, b, c = ids_in(north, "train", 3)
    merge(north, a, b)
    merge(north, b, c)
    assert not merge(north, c, a).is_new
    assert {kept_key(north, key_of(north, name)) for name in (a, b, c)} == {key_of(north, c)}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda pair: pair[0] != pair[1]), max_size=8))
def test_patients_are_one_exactly_if_merges_connect_them(north: Workspace, pairs: list[tuple[int, int]]) -> None:
    """Whatever the order: against a union of sets; and no group with a training patient ends in evaluation."""
    with TemporaryDirectory() as place:
        here = Workspace(north.uri)
        here.__dict__["lake"] = Lake(place, north.lake.schemas, north.lake.corrections)
        groups = [{i} for i in range(7)]
        for wrong, right in pairs:
            merge(here, f"H{wrong}", f"H{right}")
            one, other = (next(group for group in groups if i in group) for i in (wrong, right))
            if one is not other:
                groups = [group for group in groups if group not in (one, other)] + [one | other]
        for group in groups:
            keys = {key_of(here, f"H{i}") for i in group}
            (kept,) = {kept_key(here, key) for key in keys}
            assert kept in keys
            parts = {part_of(key, here.settings.split) for key in keys}
            assert part_of(kept, here.settings.split) == min(parts, key=["train", "validation", "evaluation"].index)
        assert len({kept_key(here, key_of(here, f"H{i}")) for i in range(7)}) == len(groups)


@pytest.mark.parametrize("order", [("train", "evaluation"), ("evaluation", "train")])
def test_a_merged_patient_sits_on_one_side_of_the_split_and_never_moves_into_evaluation(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, order: tuple[str, str]
) -> None:
    """A model may have been trained on the scans of one: they must not become its evaluation."""
    wrong, right = (ids_in(north, part, 1)[0] for part in order)
    scans_of(write_ct, folder, wrong, right)
    ingest(north)
    split = north.settings.split
    assert {part_of(key, split) for key in patients(north)} == {"train", "evaluation"}
    count = merge(north, wrong, right)
    assert {part_of(key, split) for key in patients(north)} == {"train"}
    assert count.was_split
    assert "train and evaluate again" in count.summary


def test_sites_that_share_an_issuer_share_the_merge(
    workspace: Workspace, tmp_path: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    for site in ("east", "west"):
        add_site(workspace, site, SiteSettings(quiet_s=0, path=str(tmp_path / site), issuer="county"))
    here = open_workspace(workspace.uri)
    for site, patient_id in (("east", "A-1"), ("west", "B-1")):
        scans_of(write_ct, tmp_path / site, patient_id)
        ingest(here, site)
    count = merge(here, "A-1", "B-1", site="east")
    assert patients(here, "east") == patients(here, "west")
    assert (count.n_wrong, count.n_right) == (1, 1)


def test_a_site_with_its_own_numbers_is_left_alone(
    workspace: Workspace, tmp_path: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    for site in ("east", "west"):
        add_site(workspace, site, SiteSettings(quiet_s=0, path=str(tmp_path / site)))
        scans_of(write_ct, tmp_path / site, "A-1", "B-1")
    here = open_workspace(workspace.uri)
    ingest(here, "east")
    ingest(here, "west")
    merge(here, "A-1", "B-1", site="east")
    assert len(set(patients(here, "east"))) == 1
    assert len(set(patients(here, "west"))) == 2


def test_every_view_of_the_series_shows_the_kept_patient_in_the_promised_columns(north: Workspace) -> None:
    """Rooms ask `core__series` through `connect`: the merge holds for any of their queries."""
    wrong, right = ids_in(north, "train")
    row: dict[str, Any] = {"site": "north", "series_key": "s", "revision": 1, "patient_key": key_of(north, wrong)}
    north.lake.append(layout.SERIES, rows_of(SERIES, [row]), transaction="s")
    merge(north, wrong, right)
    with north.lake.connect([layout.SERIES]) as db:
        found = db.sql("SELECT * FROM core__series").to_arrow_table()
    assert found.column_names == SERIES.names
    assert found.to_pylist()[0] == {name: row.get(name) for name in SERIES.names} | {
        "patient_key": key_of(north, right)
    }
    with north.lake.connect() as db:
        assert db.sql("SELECT count(*) FROM core__patient_merge").fetchall() == [(1,)]


def test_a_merge_that_another_overtook_looks_again(north: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the write another process merges b into c: a must end at c too."""
    a, b, c = ids_in(north, "train", 3)
    append, overtaking = Lake.append, [True]

    def slow(lake: Lake, table: str, rows: Any, *, transaction: str) -> int:
        if overtaking:
            overtaking.clear()
            merge(open_workspace(north.uri), b, c)
        return append(lake, table, rows, transaction=transaction)

    monkeypatch.setattr(Lake, "append", slow)
    merge(north, a, b)
    assert {kept_key(north, key_of(north, name)) for name in (a, b, c)} == {key_of(north, c)}


@pytest.mark.parametrize(("wrong", "right"), [("", "HOSP-4712"), ("HOSP-4711", " "), ("HOSP-4711", "HOSP-4711 ")])
def test_a_merge_takes_two_different_identifiers_and_does_not_repeat_them(
    north: Workspace, wrong: str, right: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        merge(north, wrong, right)
    assert "HOSP" not in str(refused.value)


def test_an_unknown_site_is_named(north: Workspace) -> None:
    with pytest.raises(UnknownName, match="north"):
        merge(north, "HOSP-4711", "HOSP-4712", site="south")


def test_no_identifier_is_written_or_told(north: Workspace) -> None:
    count = merge(north, "HOSP-4711", "HOSP-4712")
    written = b"".join(file.read_bytes() for file in Path(north.uri).rglob("*") if file.is_file())
    assert b"HOSP-47" not in written
    assert "HOSP" not in count.summary
    assert "may be mistyped" in count.summary
