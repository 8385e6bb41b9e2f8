from pathlib import Path

import pytest

from platform_core.errors import NoSuchPlace, SchemaMismatch
from platform_core.manifest.index import by_file, read_index


def test_a_row_matches_the_end_of_an_address() -> None:
    index = by_file([{"file": "src/a/1.png"}, {"file": "src/b/1.png"}])
    assert index.find("a/1.png") == {"file": "src/a/1.png"}
    assert index.find("deeper/src/b/1.png") == {"file": "src/b/1.png"}


def test_an_ambiguous_or_unknown_file_matches_nothing() -> None:
    index = by_file([{"file": "a/1.png"}, {"file": "b/1.png"}])
    assert index.find("1.png") is None
    assert index.find("c/1.png") is None
    assert index.find("2.png") is None
    assert index.find("x1.png") is None


def test_the_longest_match_wins() -> None:
    index = by_file([{"file": "1.png"}, {"file": "b/1.png"}])
    assert index.find("b/1.png") == {"file": "b/1.png"}
    assert index.find("a/1.png") == {"file": "1.png"}


def test_members_of_an_archive_match() -> None:
    index = by_file([{"file": "src/x.npz#train/0"}, {"file": "src/x.npz#val/0"}])
    assert index.find("x.npz#val/0") == {"file": "src/x.npz#val/0"}


def test_an_index_without_its_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    file.write_text("name,patient_id\na,1\n")
    with pytest.raises(SchemaMismatch, match="missing file; found name, patient_id"):
        read_index(str(file))


def test_a_missing_index_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NoSuchPlace):
        read_index(str(tmp_path / "index.csv"))
