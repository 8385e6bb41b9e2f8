"""What is held is shown, decided on again, or released; and every reason has a meaning."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from platform_core import layout
from platform_core.errors import BadRequest, IdentityLeak, UnknownName
from platform_core.manifest import ingest as ingesting
from platform_core.manifest import reading
from platform_core.manifest.canaries import CanaryScore
from platform_core.manifest.copies import mark_copies, originals
from platform_core.manifest.ingest import IngestCount
from platform_core.manifest.ledger import account
from platform_core.manifest.quarantine import held_files, release, replay
from platform_core.manifest.reasons import REASONS
from platform_core.manifest.stages import StageCount, current_series
from platform_core.manifest.workspace import Workspace
from tests.conftest import save

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., IngestCount]
ROOT = Path(__file__).parents[2] / "platform_core"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "scans"


def test_every_reason_that_the_code_gives_is_explained() -> None:
    given = re.compile(
        r'(?:UnreadableScan\(\s*|Outcome\((?:IGNORED|QUARANTINED|WAITING|DUPLICATE), |refusal=)"([a-z_]+)"'
    )
    rooms = [ROOT / room for room in ("dicom", "manifest", "sources")]
    found = {code for room in rooms for file in room.glob("*.py") for code in given.findall(file.read_text())}
    assert len(found) > 30
    assert found - set(REASONS) - {"unknown_class"} == set()


def test_a_door_that_lets_an_identity_through_takes_nothing_in(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct(folder)
    assert ingest(north).n_died > 100
    named = reading._take
    monkeypatch.setattr(reading, "_take", lambda *a, **k: _with_name(named(*a, **k)))
    write_ct(folder / "more", SeriesInstanceUID="1.2.3")
    with pytest.raises(IdentityLeak, match="patient_id"):
        ingest(north)
    assert len(north.lake.read(layout.SERIES)) == 1


def _with_name(taken: Any) -> Any:
    return replace(taken, facts=taken.facts | {"software": taken.identity.patient_id})


def test_what_is_held_can_be_decided_on_again(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct(folder)
    with monkeypatch.context() as strict:
        strict.setattr(ingesting, "send_canaries", lambda *_: CanaryScore())
        strict.setattr(reading, "_refused_by_header", lambda *_: ("known_screen", "a rule that was too strict"))
        ingest(north)
    (held,) = {(row["reason"], row["series_key"]) for row in held_files(north, "north")}
    assert ingest(north).n_in == 0
    assert replay(north, "north", reason="known_screen") == 4
    assert ingest(north).n_accepted == 4
    assert held_files(north, "north") == []
    (series,) = current_series(north, "north").to_pylist()
    assert (series["series_key"], series["revision"]) == (held[1], 2)


def test_a_file_of_no_series_can_be_decided_on_again(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder)
    (folder / "broken.dcm").write_text("says it is a scan")
    ingest(north)
    assert replay(north, "north", reason="not_dicom") == 1
    assert ingest(north).n_in == 0
    assert [row["reason"] for row in held_files(north, "north")] == ["not_dicom"]
    assert len(north.lake.read(layout.ARRIVAL)) == 5


def test_what_looks_like_text_is_released_with_a_reason(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct(folder, (0,), Modality="DX")
    seen: Any = type("Seen", (), {"detail": "a line"})()
    monkeypatch.setattr(ingesting, "send_canaries", lambda *_: CanaryScore())
    monkeypatch.setattr(reading, "has_text_like_regions", lambda *_: seen)
    monkeypatch.setattr(reading, "is_at_risk", lambda _: True)
    ingest(north)
    (held,) = held_files(north, "north")
    assert held["reason"] == "burned_in_text"
    with pytest.raises(BadRequest, match="say why"):
        release(north, "north", held["series_key"], because=" ")
    assert release(north, "north", held["series_key"], because="it says PORTABLE") == 1
    assert ingest(north).n_accepted == 1


def test_a_release_is_of_the_files_that_were_looked_at(
    north: Workspace, folder: Path, make_slice: Callable[..., Dataset], ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Any = type("Seen", (), {"detail": "a line"})()
    monkeypatch.setattr(ingesting, "send_canaries", lambda *_: CanaryScore())
    monkeypatch.setattr(reading, "has_text_like_regions", lambda *_: seen)

    def send(name: str, n: int, text: int) -> None:
        pixels = np.arange(4096).reshape(64, 64) + text
        save(folder / name, make_slice(n, (0, 0, 0), pixels, Modality="DX", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1"))

    def shown() -> list[int]:
        return sorted(row["part"] for row in current_series(north, "north").to_pylist())

    send("a", 0, 0)
    send("b", 1, 0)
    ingest(north)
    key = next(row["series_key"] for row in north.lake.read(layout.SERIES).to_pylist() if row["part"] == 1)
    assert release(north, "north", key, because="it says PORTABLE") == 1
    ingest(north)
    assert shown() == [1]
    send("c", 2, 0)
    ingest(north)
    assert shown() == [1]
    send("b", 1, 9)
    assert ingest(north).n_quarantined == 1
    assert [row["revision"] for row in current_series(north, "north").to_pylist()] == [2]


def test_only_what_looks_like_text_can_be_released(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder, (0, 2, 8))
    ingest(north)
    key = held_files(north, "north")[0]["series_key"]
    with pytest.raises(BadRequest, match="missing_slices"):
        release(north, "north", key, because="I like it")


def test_a_reason_under_which_nothing_is_held_names_those_that_are(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder, (0, 2, 8))
    ingest(north)
    with pytest.raises(UnknownName, match="missing_slices"):
        replay(north, "north", reason="colour")


def test_the_same_voxels_under_two_uids_count_once(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder / "a", SeriesInstanceUID="1.2.3.1")
    ingest(north)
    first = mark_copies(north, "north", run="r1")
    write_ct(folder / "b", SeriesInstanceUID="1.2.3.2")
    ingest(north)
    second = mark_copies(north, "north", run="r2")
    assert (first.n_done, second.n_refused) == (1, 1)
    assert len(originals(north, "north")) == 1
    assert mark_copies(north, "north", run="r3").n_in == 0


def test_an_original_that_comes_corrected_stays_the_original(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    """Else it is refused as the copy of its own copy, and nothing of the two is left."""
    told: list[StageCount] = []
    for name, elements in (("a", {}), ("b", {}), ("a", {"PixelSpacing": [0.5, 0.5]})):
        write_ct(folder / name, SeriesInstanceUID=f"1.2.3.{ord(name)}", **elements)
        count = ingest(north)
        told.append(mark_copies(north, "north", run=f"r{len(told)}"))
    assert count.n_new_revisions == 1
    assert [(count.n_done, count.n_refused) for count in told] == [(1, 0), (0, 1), (1, 0)]


def test_a_series_that_is_corrected_to_the_pixels_of_another_is_the_copy(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    told: list[StageCount] = []
    for name, intercept in (("a", "0"), ("b", "-1024"), ("a", "-1024")):
        write_ct(folder / name, SeriesInstanceUID=f"1.2.3.{ord(name)}", RescaleIntercept=intercept)
        ingest(north)
        told.append(mark_copies(north, "north", run=f"r{len(told)}"))
    assert [(count.n_done, count.n_refused) for count in told] == [(1, 0), (1, 0), (0, 1)]


def test_a_series_of_several_revisions_counts_once_at_every_stage(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    late = write_ct(folder, (0, 2, 4, 6, 8))[2]
    data = late.read_bytes()
    late.unlink()
    ingest(north)
    late.write_bytes(data)
    ingest(north)
    assert account(north)["north"] == {"accepted": 5, "ingest/done": 1}
