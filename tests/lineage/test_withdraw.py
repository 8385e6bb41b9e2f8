"""A patient who withdraws is in no file afterwards; everything else is as it was; and a broken withdrawal ends."""

import gzip
import json
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.doctor import examine
from platform_core import layout
from platform_core.errors import BadRequest, UnknownName
from platform_core.lineage.journal import held_plans, keep_plan
from platform_core.lineage.plan import Plan, plan_withdrawal
from platform_core.lineage.withdraw import Withdrawn, _clear_book, withdraw
from platform_core.manifest.book import Book, Entry
from platform_core.manifest.copies import mark_copies
from platform_core.manifest.door import open_door
from platform_core.manifest.patients import merge_patients
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace
from platform_core.quality.stage import check_quality
from platform_core.shift.sketch.sketches import restate_days, sketch_shard
from platform_core.shift.watch.kept import Kept
from platform_core.shift.watch.vigil import kept_watches
from tests.lineage.conftest import AT, BASIS, GONE, Fleet, copy_of, keys_of, patients_of, send, take_in
from tests.lineage.kill import WRITERS, stepping

LATER = AT + timedelta(days=3)
SENT = "n7v0"
"""The folder that the patient's scans came in, as the door book has it."""
CHANGED_OTHERWISE = (layout.WITHDRAWN, layout.WITHDRAWAL, layout.RANK, layout.POOL, layout.SKETCH)


def plan_of(fleet: Fleet, patient: str = GONE, site: str = "south") -> Plan:
    return plan_withdrawal(fleet.workspace, site, patient, run="20260304T000000-gone", at=LATER)


def gone(fleet: Fleet, patient: str = GONE, site: str = "south") -> Withdrawn:
    return withdraw(fleet.workspace, plan_of(fleet, patient, site), at=LATER)


def texts(place: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, as it lies and unpacked."""
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        data = file.read_bytes()
        yield file, str(file.relative_to(place)).encode() + data
        if file.suffix == ".parquet":
            yield file, repr(pq.ParquetFile(file).read().to_pylist()).encode()
        elif data[:2] == b"\x1f\x8b":
            try:
                yield file, gzip.decompress(data)
            except (OSError, zlib.error):
                continue
        elif file.suffix == ".sqlite":
            with closing(sqlite3.connect(file)) as db:
                yield file, "\n".join(db.iterdump()).encode()


def holding(place: Path, words: set[str]) -> set[tuple[str, str]]:
    wanted = {word: word.encode() for word in words}
    return {(file.name, word) for file, text in texts(place) for word, each in wanted.items() if each in text}


def rows_of_all(workspace: Workspace) -> dict[str, list[str]]:
    """Every row of every table as text, in order."""
    return {
        table: sorted(json.dumps(row, default=str) for row in workspace.lake.read(table).to_pylist())
        for table in workspace.lake.schemas
    }


def is_of(row: str, words: set[str]) -> bool:
    return any(word in row for word in words)


@dataclass(frozen=True)
class After:
    """A fleet from which a patient was withdrawn, and what was there before."""

    fleet: Fleet
    plan: Plan
    done: Withdrawn
    before: dict[str, list[str]]
    watch: Kept
    words: set[str]
    """Keys, hashes of volumes and pseudonyms of series."""
    n_holding: int
    """Files of the workspace that held one of them."""
    was_in_door: bool


@pytest.fixture(scope="module")
def after(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[After]:
    """Tables compacted first, so that earlier versions hold the patient too; changed by no test."""
    with pytest.MonkeyPatch.context() as patch:
        fleet = copy_of(made, tmp_path_factory.mktemp("after") / "copy", patch)
        here = fleet.workspace
        for table in (layout.STAGE, layout.FEATURE, layout.ARRIVAL, layout.SKETCH):
            here.lake.compact(table)
        plan = plan_of(fleet)
        bases = {base for found in plan.bases.values() for base in found}
        words = {*plan.words, *bases, *(volume_of(fleet, key) for key in plan.keys)}
        told: dict[str, Any] = {
            "before": rows_of_all(here),
            "watch": kept_watches(here, "north")[0],
            "n_holding": len({name for name, _ in holding(Path(here.uri), words)}),
            "was_in_door": bool(holding(fleet.home, {SENT})),
        }
        yield After(fleet=fleet, plan=plan, done=withdraw(here, plan, at=LATER), words=words, **told)


def test_no_file_of_workspace_or_door_holds_anything_of_the_patient(after: After) -> None:
    assert len(after.plan.keys) == 2
    assert after.n_holding > 20
    assert after.was_in_door
    assert after.done.has_ended
    assert holding(Path(after.fleet.workspace.uri), {*after.words, GONE}) == set()
    assert holding(after.fleet.home, {*after.words, SENT, GONE}) == set()
    assert held_plans(after.fleet.workspace) == []


def volume_of(fleet: Fleet, key: str) -> str:
    rows = fleet.workspace.lake.read(layout.SERIES, pc.field("series_key") == key).to_pylist()
    return str(rows[0]["volume_sha256"])


def test_every_row_of_others_is_as_it_was(after: After) -> None:
    now, words = rows_of_all(after.fleet.workspace), set(after.plan.words)
    for table in after.before.keys() - set(CHANGED_OTHERWISE):
        assert now[table] == [row for row in after.before[table] if not is_of(row, words)], table


def test_what_is_counted_is_what_was_there(after: After) -> None:
    words = set(after.plan.words)
    held = {table: sum(is_of(row, words) for row in rows) for table, rows in after.before.items()}
    assert dict(after.plan.n_rows) == {table: n for table, n in held.items() if n}
    assert after.plan.n_volumes == 2 * len(after.plan.keys)


def test_the_sketches_are_those_of_the_patients_who_are_left(after: After) -> None:
    """Against the features themselves: sums, counts, and no row that a subtraction would give away."""
    fleet = after.fleet
    for site in ("north", "south"):
        features = native(fleet.workspace, site)
        sketches = fleet.workspace.lake.read(layout.SKETCH, pc.field("site") == site).to_pylist()
        names = {row["feature"] for row in sketches if row["kind"] == "histogram"}
        assert len(names) > 10
        for name in names:
            mine = [row for row in sketches if row["feature"] == name]
            values = pc.drop_null(features.column(name))
            assert sum(row["n"] for row in mine) == len(values) == len(patients_of(site, without=GONE))
            assert sum(row["sum"] for row in mine) == pytest.approx(pc.sum(values).as_py())
        assert all(row["n"] >= 0 for row in sketches)


def native(workspace: Workspace, site: str) -> pa.Table:
    return workspace.lake.read(layout.FEATURE, (pc.field("site") == site) & (pc.field("recipe") == layout.NATIVE))


def test_sketches_can_be_restated_and_written_on(fleet: Fleet) -> None:
    gone(fleet)
    here = fleet.workspace
    days = current_series(here, "south").column("observed_on").to_pylist()
    versions = here.lake.versions()
    assert restate_days(here, "south", days, basis=BASIS, run="again") == 0
    assert here.lake.versions() == versions
    new_patient(fleet, "HOSP-0303")
    sketch_shard(here, "south", keys_of(here, "south"), basis=BASIS, run="later")
    assert restate_days(here, "south", days, basis=BASIS, run="again") == 0


def new_patient(fleet: Fleet, patient: str, site: str = "south") -> None:
    """A scan that comes later, from a folder of this test's own."""
    scans = Path(fleet.workspace.uri).parent / "scans"
    send(scans, site, patient)
    redirect(fleet, site, scans)
    here = Workspace(fleet.workspace.uri)
    take_in(here, site, LATER + timedelta(hours=1))
    night(here, site)


def redirect(fleet: Fleet, site: str, scans: Path) -> None:
    """Let a site send from another folder."""
    file = Path(fleet.workspace.uri) / layout.site_file(site)
    file.write_text(file.read_text(encoding="utf-8").replace(str(fleet.scans), str(scans)), encoding="utf-8")


def night(workspace: Workspace, site: str) -> None:
    """The stages up to quality."""
    from platform_core.features.stage import measure_shard

    mark_copies(workspace, site, run="night")
    measure_shard(workspace, site, keys_of(workspace, site), recipe=layout.NATIVE, run="night")
    check_quality(workspace, site, run="night")


def test_the_stages_have_nothing_to_do_again(fleet: Fleet) -> None:
    gone(fleet)
    versions = fleet.workspace.lake.versions()
    for site in fleet.workspace.sites:
        night(fleet.workspace, site)
        sketch_shard(fleet.workspace, site, keys_of(fleet.workspace, site), basis=BASIS, run="night")
    assert fleet.workspace.lake.versions() == versions


def test_scans_that_still_lie_at_the_source_are_ignored_once_with_a_reason(fleet: Fleet) -> None:
    plan = plan_of(fleet)
    withdraw(fleet.workspace, plan, at=LATER)
    assert [take_in(fleet.workspace, site, LATER) for site in fleet.workspace.sites] == [0, 6, 6]
    rows = fleet.workspace.lake.read(layout.ARRIVAL, pc.field("reason") == "withdrawn").to_pylist()
    assert {(row["outcome"], row["series_key"], row["content_sha256"]) for row in rows} == {("ignored", None, "")}
    next_day = LATER + timedelta(days=1)
    assert [take_in(fleet.workspace, site, next_day) for site in fleet.workspace.sites] == [0, 0, 0]
    assert keys_of(fleet.workspace, "south", GONE) == keys_of(fleet.workspace, "north", GONE) == []
    words = {*plan.patient_keys, *plan.keys}
    assert holding(Path(fleet.workspace.uri), words) == set()


def test_a_site_with_its_own_numbers_keeps_its_patient_of_that_number(fleet: Fleet) -> None:
    before = keys_of(fleet.workspace, "east", "HOSP-0101")
    gone(fleet, "HOSP-0101", "south")
    assert keys_of(fleet.workspace, "east", "HOSP-0101") == before != []


def test_an_identifier_that_is_not_here_yet_leaves_a_tombstone(fleet: Fleet) -> None:
    done = gone(fleet, "HOSP-0400", "south")
    assert (done.n_series, done.models) == (0, ())
    new_patient(fleet, "HOSP-0400")
    assert keys_of(Workspace(fleet.workspace.uri), "south", "HOSP-0400") == []
    assert fleet.workspace.lake.read(layout.WITHDRAWAL).num_rows == 0


def test_a_watch_forgets_the_series_and_nothing_else(after: After) -> None:
    (now,) = kept_watches(after.fleet.workspace, "north")
    left = tuple(seen for seen in after.watch.recent if seen[0] not in after.plan.keys)
    assert now == replace(after.watch, recent=left)
    assert len(left) == len(after.watch.recent) - 2


def test_the_models_that_saw_the_patient_are_named_with_the_way_to_rebuild(after: After) -> None:
    seen = {one.model: (one.how, one.rebuild) for one in after.done.models}
    assert seen == {
        "lesion@1": ("trained", "sitedrift train lesion"),
        "lesion@2": ("descended", "sitedrift train lesion && sitedrift run"),
    }


def test_no_model_is_named_for_a_patient_whom_none_saw(fleet: Fleet) -> None:
    assert gone(fleet, "HOSP-0100", "east").models == ()


def test_the_audit_tells_what_went_and_names_nobody(after: After) -> None:
    plan = after.plan
    (row,) = after.fleet.workspace.lake.read(layout.WITHDRAWAL).to_pylist()
    assert (row["sites"], row["n_series"], row["n_volumes"], row["n_left"]) == (["north", "south"], 2, 4, 0)
    assert json.loads(row["n_rows"]) == dict(plan.n_rows)
    assert "ranks of other scans" in row["because"]
    assert not is_of(json.dumps(row, default=str), {*plan.words, *plan.tombstones, GONE})


def test_merged_identifiers_are_one_person_and_go_together(fleet: Fleet) -> None:
    here = fleet.workspace
    merge_patients(here, "south", "HOSP-0005", GONE, run="m", at=AT)
    merge_patients(here, "south", "HOSP-0006", "HOSP-0008", run="m", at=AT)
    plan = plan_of(fleet, "HOSP-0005")
    withdraw(here, plan, at=LATER)
    for patient in ("HOSP-0005", GONE):
        assert keys_of(here, "north", patient) == keys_of(here, "south", patient) == []
        assert open_door(here).tombstone(open_door(here).patient_key("county", patient)) in plan.tombstones
    assert holding(Path(here.uri), set(plan.words)) == set()
    assert merge_patients(here, "south", "HOSP-0009", "HOSP-0004", run="m", at=AT).is_new


def test_a_series_that_was_corrected_to_another_patient_stays_with_that_patient(fleet: Fleet) -> None:
    here = fleet.workspace
    rows = here.lake.read(layout.SERIES, pc.field("site") == "east").to_pylist()
    first = rows[0] | {"revision": 0, "patient_key": open_door(here).patient_key("east", "HOSP-0999")}
    here.lake.append(
        layout.SERIES, pa.Table.from_pylist([first], schema=here.lake.schemas[layout.SERIES]), transaction="x"
    )
    plan = plan_of(fleet, "HOSP-0999", "east")
    assert (plan.keys, plan.n_rows[layout.SERIES]) == ((), 1)
    withdraw(here, plan, at=LATER)
    assert holding(Path(here.uri), set(plan.words)) == set()
    assert first["series_key"] in keys_of(here, "east")


def test_a_site_at_work_is_left_alone_and_the_withdrawal_ends_later(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(fleet)
    with monkeypatch.context() as patch:
        patch.setattr(Book, "begin", lambda *_: False)
        with pytest.raises(BadRequest, match="a run is at work"):
            withdraw(fleet.workspace, plan, at=LATER)
    assert keys_of(fleet.workspace, "south", GONE)
    (held,) = held_plans(fleet.workspace)
    assert held == plan
    assert withdraw(fleet.workspace, held, at=LATER).has_ended
    assert keys_of(fleet.workspace, "south", GONE) == []


def test_what_came_while_the_person_was_thinking_goes_too(fleet: Fleet) -> None:
    plan = plan_of(fleet)
    scans = Path(fleet.workspace.uri).parent / "scans"
    send(scans, "south", GONE, visit=1)
    redirect(fleet, "south", scans)
    here = Workspace(fleet.workspace.uri)
    take_in(here, "south", LATER)
    night(here, "south")
    late = set(keys_of(here, "south", GONE)) - set(plan.keys)
    assert len(late) == 1
    done = withdraw(here, plan, at=LATER)
    assert (done.has_ended, done.n_series) == (True, 3)
    assert holding(Path(here.uri), late) == set()


def test_a_file_that_nobody_may_remove_is_told_and_the_withdrawal_stays_open(fleet: Fleet) -> None:
    plan = plan_of(fleet)
    note = Path(fleet.workspace.uri) / "notes.txt"
    note.write_text(f"look at {plan.keys[0]}", encoding="utf-8")
    assert withdraw(fleet.workspace, plan, at=LATER).traces == ("notes.txt",)
    note.unlink()
    (held,) = held_plans(fleet.workspace)
    assert withdraw(fleet.workspace, held, at=LATER).has_ended
    assert sorted(fleet.workspace.lake.read(layout.WITHDRAWAL).column("n_left").to_pylist()) == [0, 1]
    assert held_plans(fleet.workspace) == []


def test_the_door_of_another_site_forgets_when_it_is_called_there(fleet: Fleet, tmp_path: Path) -> None:
    """South's door book lies on another machine: the first call says so, the second, there, clears it."""
    book = next(fleet.home.rglob("south.sqlite"))
    away = tmp_path / "away.sqlite"
    for suffix in ("", "-wal", "-shm"):
        if book.with_name(book.name + suffix).exists():
            book.with_name(book.name + suffix).rename(away.with_name(away.name + suffix))
    assert gone(fleet).elsewhere == ("south",)
    away.rename(book)
    assert holding(book.parent, {SENT})
    assert gone(fleet).n_series == 0
    assert holding(book.parent, {SENT}) == set()
    assert holding(book.parent, {"n8v0"})


class Killed(BaseException):
    """Ends a withdrawal as SIGKILL would: nothing in this code catches it."""


def count_steps(patch: pytest.MonkeyPatch, last: int | None = None) -> list[int]:
    """Take a step before and after everything that writes; at the last one the process dies."""
    taken = [0]

    def step() -> None:
        taken[0] += 1
        if taken[0] == last:
            raise Killed

    for owner, name in WRITERS:
        patch.setattr(owner, name, stepping(getattr(owner, name), step))
    return taken


@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_withdrawal_that_is_killed_anywhere_ends_when_it_is_called_again(
    fleet: Fleet, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    plan = plan_of(fleet)
    with monkeypatch.context() as patch:
        n_steps = count_steps(patch)
        withdraw(fleet.workspace, plan, at=LATER)
    whole = rows_of_all(fleet.workspace)
    broken = copy_of(made, tmp_path / "broken", monkeypatch)
    with monkeypatch.context() as patch:
        count_steps(patch, last=max(1, int(share * n_steps[0])))
        with pytest.raises(Killed):
            withdraw(broken.workspace, plan, at=LATER)
    (held,) = held_plans(broken.workspace)
    assert withdraw(broken.workspace, held, at=LATER).has_ended
    assert rows_of_all(broken.workspace) == whole
    assert holding(Path(broken.workspace.uri), set(plan.words)) == set()
    assert holding(broken.home, {*plan.words, SENT}) == set()


def test_a_process_that_is_killed_leaves_a_journal_from_which_another_ends(fleet: Fleet) -> None:
    plan = plan_of(fleet)
    keep_plan(fleet.workspace, plan)
    for step in ("40", "150"):
        command = [sys.executable, "-m", "tests.lineage.kill", fleet.workspace.uri, step]
        assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == -signal.SIGKILL
    held = held_plans(fleet.workspace)
    assert held == [plan]
    assert any("has not ended" in line for line in examine(fleet.workspace.uri))
    call = ["withdraw", "south", "--workspace", fleet.workspace.uri, "--yes"]
    told = CliRunner().invoke(app, call, input=f"{GONE}\n")
    assert "An earlier withdrawal" in told.stderr
    assert held_plans(fleet.workspace) == []
    assert holding(Path(fleet.workspace.uri), set(plan.words)) == set()
    assert holding(fleet.home, {*plan.words, SENT}) == set()


def test_an_unknown_site_is_named_and_no_identifier_repeated(fleet: Fleet) -> None:
    with pytest.raises(UnknownName, match="north"):
        plan_of(fleet, site="west")
    with pytest.raises(BadRequest, match="is empty"):
        plan_of(fleet, "  ")


def test_the_verb_asks_first_takes_no_identifier_as_an_argument_and_never_shows_it(fleet: Fleet) -> None:
    call = ["withdraw", "south", "--workspace", fleet.workspace.uri]
    told = CliRunner().invoke(app, call, input=f"{GONE}\nn\n")
    assert told.exit_code == 1
    assert keys_of(fleet.workspace, "south", GONE)
    assert "2 series (1 at north, 1 at south), 12 files, 4 stored volumes" in told.output
    assert CliRunner().invoke(app, [*call, GONE]).exit_code == 2
    done = CliRunner().invoke(app, [*call, "--yes"], input=f"{GONE}\n")
    assert done.exit_code == 1  # models are to be rebuilt
    assert "no file of the workspace holds a key" in done.output
    assert GONE not in told.output + done.output
    again = CliRunner().invoke(app, [*call, "--yes", "--json"], input=f"{GONE}\n")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["n_series"] == 0


def test_everybody_else_is_still_there(fleet: Fleet) -> None:
    gone(fleet)
    here = fleet.workspace
    for site in here.sites:
        left = patients_of(site, without=GONE if site != "east" else None)
        assert [len(keys_of(here, site, patient)) for patient in left] == [1] * len(left)


class CountedKey(str):
    """A key that counts how often it is put into a set or looked for in one."""

    __slots__ = ()
    n_hashed = 0

    def __hash__(self) -> int:
        CountedKey.n_hashed += 1
        return super().__hash__()


class KnownFiles:
    """A door book of files that the ledger does not know."""

    def __init__(self, n: int) -> None:
        self.known = [
            Entry(address="", n_bytes=1, modified_ns=1, arrival_key=CountedKey(f"k{i}"), base=f"b{i}") for i in range(n)
        ]
        self.erased: tuple[set[str], set[str]] = (set(), set())

    def entries(self) -> Iterator[Entry]:
        yield from self.known

    def erase(self, bases: set[str], arrival_keys: set[str]) -> None:
        self.erased = bases, arrival_keys


def test_a_book_of_n_files_is_cleared_in_n_steps(workspace: Workspace) -> None:
    book, n = KnownFiles(100), 100
    plan = SimpleNamespace(bases={}, arrivals=())
    _clear_book(workspace, "south", cast("Book", book), cast("Plan", plan))
    assert CountedKey.n_hashed < 10 * n
    assert book.erased == ({f"b{i}" for i in range(n)}, {f"k{i}" for i in range(n)})
