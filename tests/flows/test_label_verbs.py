"""`sitedrift label request | list | import` as a person meets them."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from platform_core.manifest.workspace import Workspace
from tests.conftest import configured

WriteCT = Callable[..., list[Path]]
TARGET = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]
"""


@pytest.fixture
def call(
    north: Workspace,
    folder: Path,
    write_ct: WriteCT,
    ingest: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Result]:
    """The command line at the door of `north`, which has taken in eight patients, in a folder of its own."""
    for n in range(8):
        write_ct(folder / str(n), (0, 2), SeriesInstanceUID=f"1.2.{n}", PatientID=f"P-{n}")
    ingest(configured(north, TARGET))
    desk = tmp_path / "desk"
    desk.mkdir()
    monkeypatch.chdir(desk)
    return lambda *words: CliRunner().invoke(app, [*words, "--workspace", north.uri], catch_exceptions=False)


Call = Callable[..., Result]
WORKLIST = Path("worklist-north-lesion.csv")


def test_labels_are_asked_for_listed_read_and_brought_back(call: Call) -> None:
    asked = call("label", "request", "north", "--target", "lesion", "--n", "3")
    assert asked.exit_code == 0, asked.output
    assert "3 scans are asked for, 3 of them anew, drawn uniformly at random" in asked.output
    assert "Fill in `value`, then: sitedrift label import worklist-north-lesion.csv" in asked.output
    assert stat.S_IMODE(WORKLIST.stat().st_mode) == 0o600
    assert "1.2." not in asked.output
    (counts,) = json.loads(call("label", "list", "--json").output)
    assert (counts["asked"], counts["open"]) == (3, 3)
    told = json.loads(call("status", "--json").output)
    assert [row["open"] for row in told[0]["labels_asked_for"]] == [3]
    assert "3 of 3 scans of the period" in " ".join(call("status").output.split())

    header, first, *others = WORKLIST.read_text().splitlines()
    assert ",benign | malignant,," in first
    filled = first.replace("| malignant,,", "| malignant,benign,")
    WORKLIST.write_text("\n".join([header, filled, *others]) + "\n")
    done = call("label", "import", str(WORKLIST), "--site", "north", "--target", "lesion")
    assert done.exit_code == 0, done.output
    assert "asked for: 3 scans, of which 1 have a label now" in done.output
    (counts,) = json.loads(call("label", "list", "north", "--json").output)
    assert (counts["asked"], counts["open"]) == (3, 2)


def test_a_list_is_not_written_over(call: Call) -> None:
    call("label", "request", "north", "--target", "lesion", "--n", "3")
    before = WORKLIST.read_text()
    with pytest.raises(Exception, match="is there already, and may be filled in"):
        call("label", "request", "north", "--target", "lesion")
    assert WORKLIST.read_text() == before
    assert call("label", "request", "north", "--target", "lesion", "--out", "again.csv").exit_code == 0
    assert Path("again.csv").read_text() == before


def test_where_nothing_is_open_nothing_is_written(call: Call) -> None:
    done = call("label", "request", "north", "--target", "lesion")
    assert done.exit_code == 0
    assert "no scan waits for a label of lesion; --n asks for some" in done.output
    assert not WORKLIST.exists()


def test_a_row_that_is_refused_needs_a_person(call: Call) -> None:
    Path("labels.csv").write_text("series_uid,value\n1.2.0,benign\n1.2.1,Erika\n")
    done = call("label", "import", "labels.csv", "--site", "north", "--target", "lesion")
    assert done.exit_code == 1
    assert "refused: line 3" in done.output
    assert "Erika" not in done.output


def test_how_far_readers_agree_is_told(call: Call) -> None:
    rows = [f"1.2.{n},{value},{reader}" for n in range(4) for reader, value in (("Who", "benign"), ("No", "benign"))]
    rows[1] = "1.2.0,malignant,No"
    Path("labels.csv").write_text("\n".join(["series_uid,value,reader", *rows]) + "\n")
    done = call("label", "import", "labels.csv", "--site", "north", "--target", "lesion")
    assert done.exit_code == 1
    assert "contradict one another on 1 series; 1 of them have no label in force" in done.output
    assert "differ on 25%" in done.output
    (pair,) = json.loads(call("label", "readers", "north", "--target", "lesion", "--json").output)
    assert (pair["series"], pair["differ"], pair["kappa"]) == (4, 1, 0.0)
    assert "Who" not in str(pair)
    assert "of 4 series" in call("label", "readers", "north", "--target", "lesion").output
