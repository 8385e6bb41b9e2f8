"""The list of scans that wait for a label names them as the hospital does, at the door alone, and comes back."""

import csv
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from platform_core import layout
from platform_core.errors import BadRequest, UnknownName
from platform_core.manifest.door import open_door
from platform_core.manifest.labels import import_labels, labels_in_force
from platform_core.manifest.requests import request_counts, write_worklist
from platform_core.manifest.schemas import REQUEST
from platform_core.manifest.workspace import Workspace, add_site
from platform_core.settings import SiteSettings
from platform_core.storage.tables import rows_of
from tests.conftest import configured

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]
AT = datetime(2026, 3, 1, tzinfo=UTC)
TARGET = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]
"""


@pytest.fixture
def waiting(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> Workspace:
    """Three series of `north`, of which those of 1.2.0 and 1.2.1 are asked for."""
    for n in range(3):
        write_ct(folder / str(n), (0, 2), SeriesInstanceUID=f"1.2.{n}", PatientID=f"P-{n}")
    here = configured(north, TARGET)
    ingest(here)
    door = open_door(here)
    ask(here, "north", [door.series_key("north", f"1.2.{n}", 0) for n in range(2)])
    return here


def ask(workspace: Workspace, site: str, keys: list[str]) -> None:
    rows = [
        {
            "site": site,
            "request_key": "q1",
            "target": "lesion",
            "series_key": key,
            "random_number": 0.1,
            "drawn": "uniform",
            "sampling_probability": 2 / 3,
            "requested_at": AT,
            "run": "r",
        }
        for key in keys
    ]
    workspace.lake.append(layout.REQUEST, rows_of(REQUEST, rows), transaction=f"ask/{site}")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "desk").mkdir()
    return tmp_path / "desk" / "list.csv"


def rows_in(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def fill_in(file: Path, value: str, *, n: int = 1, without: tuple[str, ...] = ()) -> None:
    rows = [{name: text for name, text in row.items() if name not in without} for row in rows_in(file)]
    for row in rows[:n]:
        row |= {"value": value, "reader": "Dr Who"}
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_list_names_scans_as_the_hospital_does_and_only_its_owner_may_read_it(
    waiting: Workspace, out: Path
) -> None:
    written = write_worklist(waiting, "north", "lesion", out)
    assert (written.n_scans, written.n_placed) == (2, 2)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    rows = rows_in(out)
    assert {(row["series_uid"], row["file"].split("/")[-2]) for row in rows} == {("1.2.0", "0"), ("1.2.1", "1")}
    assert {(row["target"], row["classes"], row["value"], row["reader"]) for row in rows} == {
        ("lesion", "benign | malignant", "", "")
    }
    assert {float(row["sampling_probability"]) for row in rows} == {2 / 3}
    assert "P-" not in out.read_text()


@pytest.mark.parametrize(
    "without",
    [(), ("series_key",), ("series_key", "series_uid"), ("sampling_probability", "target", "classes")],
    ids=["whole", "by series_uid", "by file", "without its chance"],
)
def test_the_filled_in_list_comes_back(waiting: Workspace, out: Path, without: tuple[str, ...]) -> None:
    write_worklist(waiting, "north", "lesion", out)
    fill_in(out, "malignant", without=without)
    count = import_labels(waiting, "north", "lesion", out, run="r1", at=AT)
    assert (count.n_rows, count.n_matched, count.n_not_stated, count.n_open) == (2, 1, 1, 1)
    assert "asked for: 2 scans, of which 1 have a label now" in count.summary
    (label,) = labels_in_force(waiting, "lesion").to_pylist()
    assert label["value"] == "malignant"
    assert label["sampling_probability"] == 2 / 3
    (row,) = waiting.lake.read(layout.LABEL).to_pylist()
    assert row["sampling_probability"] == 2 / 3
    assert [row["open"] for row in request_counts(waiting)] == [1]


def test_what_is_answered_is_not_listed_again(waiting: Workspace, out: Path) -> None:
    write_worklist(waiting, "north", "lesion", out)
    fill_in(out, "benign", n=2)
    import_labels(waiting, "north", "lesion", out, run="r1", at=AT)
    done = write_worklist(waiting, "north", "lesion", out.with_name("next.csv"))
    assert done.file is None
    assert "no scan waits" in done.summary
    assert not out.with_name("next.csv").exists()


def test_the_list_lies_outside_every_workspace_and_replaces_no_file(waiting: Workspace, out: Path) -> None:
    for inside in (Path(waiting.uri) / "list.csv", Path(waiting.uri) / layout.REPORTS / "list.csv"):
        with pytest.raises(BadRequest, match="inside a workspace"):
            write_worklist(waiting, "north", "lesion", inside)
        assert not inside.exists()
    out.write_text("half filled in")
    with pytest.raises(BadRequest, match="is there already"):
        write_worklist(waiting, "north", "lesion", out)
    assert out.read_text() == "half filled in"
    with pytest.raises(BadRequest, match="is no folder"):
        write_worklist(waiting, "north", "lesion", out.parent / "nowhere" / "list.csv")


@pytest.mark.parametrize("has_key", [True, False], ids=["no door book", "no key"])
def test_away_from_the_door_the_list_holds_pseudonyms_and_says_who_can_complete_it(
    waiting: Workspace, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_key: bool
) -> None:
    door = open_door(waiting)
    monkeypatch.setenv("SITEDRIFT_HOME", str(tmp_path / "elsewhere"))
    if has_key:
        monkeypatch.setenv("SITEDRIFT_KEY", door.secret.hex())
    written = write_worklist(waiting, "north", "lesion", out)
    assert (written.n_scans, written.n_placed) == (2, 0)
    assert {(row["series_uid"], row["file"]) for row in rows_in(out)} == {("", "")}
    assert {len(row["series_key"]) for row in rows_in(out)} == {20}
    assert "with the worker 'local'; run `sitedrift label request north --target lesion` there" in written.summary
    assert not (tmp_path / "elsewhere" / "doors").exists()


def test_a_file_that_has_gone_leaves_its_address_and_no_uid(waiting: Workspace, folder: Path, out: Path) -> None:
    (folder / "0" / "IM0000").unlink()
    write_worklist(waiting, "north", "lesion", out)
    assert {row["series_uid"] for row in rows_in(out)} == {"", "1.2.1"}
    assert all(row["file"] for row in rows_in(out))


def test_plain_images_are_listed_by_file(workspace: Workspace, tmp_path: Path, ingest: Ingest, out: Path) -> None:
    images, rng = tmp_path / "images", np.random.default_rng(0)
    images.mkdir()
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (32, 32)).astype(np.uint8)).save(images / f"{name}.png")
    add_site(workspace, "north", SiteSettings(quiet_s=0, source="image_folder", path=str(images), modality="CT"))
    here = configured(workspace, TARGET)
    ingest(here)
    ask(here, "north", here.lake.read(layout.SERIES).column("series_key").to_pylist())
    written = write_worklist(here, "north", "lesion", out)
    assert written.n_placed == 2
    assert {row["file"] for row in rows_in(out)} == {"a.png", "b.png"}
    fill_in(out, "benign", n=2, without=("series_key",))
    assert import_labels(here, "north", "lesion", out, run="r1", at=AT).n_matched == 2


def test_an_unknown_site_or_target_is_named(waiting: Workspace, out: Path) -> None:
    with pytest.raises(UnknownName):
        write_worklist(waiting, "nowhere", "lesion", out)
    with pytest.raises(UnknownName):
        write_worklist(waiting, "north", "tumour", out)
