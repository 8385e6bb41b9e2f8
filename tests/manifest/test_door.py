import stat
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import WrongKey
from platform_core.manifest.door import Door, create_key, open_door
from platform_core.manifest.workspace import Workspace, create_workspace

OTHER_KEY = "ab" * 32
DOOR = Door(secret=b"k" * 32, fingerprint="f", home=Path("nowhere"))
text = st.text(min_size=1, max_size=12)


def test_the_key_is_for_its_owner_alone_and_outside_the_workspace(workspace: Workspace, home: Path) -> None:
    (file,) = (home / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    secret = file.read_text().splitlines()[-1]
    assert not any(secret in path.read_text() for path in Path(workspace.uri).rglob("*.toml"))
    assert open_door(workspace).fingerprint == workspace.settings.key_fingerprint


def test_two_workspaces_have_two_keys(home: Path) -> None:
    assert create_key("a") != create_key("b")


def test_the_environment_overrides_the_key_file(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITEDRIFT_KEY", OTHER_KEY)
    fingerprint = create_key("w")
    assert not (home / "keys").exists()
    assert open_door(create_workspace(tmp_path / "v", key_fingerprint=fingerprint)).secret == bytes.fromhex(OTHER_KEY)


def test_another_key_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITEDRIFT_KEY", OTHER_KEY)
    with pytest.raises(WrongKey, match="another workspace"):
        open_door(workspace)


@pytest.mark.parametrize("key", ["", "short", "zz" * 32])
def test_what_is_no_key_is_refused_and_not_repeated(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("SITEDRIFT_KEY", key)
    with pytest.raises(WrongKey) as refusal:
        open_door(workspace)
    assert not key or key not in str(refusal.value)


def test_a_missing_key_is_refused(workspace: Workspace, home: Path) -> None:
    for file in (home / "keys").iterdir():
        file.unlink()
    with pytest.raises(WrongKey, match="cannot be read"):
        open_door(workspace)


def test_the_secret_is_not_shown() -> None:
    assert "kkkk" not in repr(DOOR)


@given(text, text, text, text)
def test_pseudonyms_differ_where_their_origins_do(a: str, b: str, c: str, d: str) -> None:
    same = (a, b) == (c, d)
    assert (DOOR.patient_key(a, b) == DOOR.patient_key(c, d)) == same
    assert (DOOR.study_key(a, b) == DOOR.study_key(c, d)) == same
    assert DOOR.study_key(a, b) != DOOR.patient_key(a, b)


def test_a_pseudonym_needs_the_key() -> None:
    other = Door(secret=b"l" * 32, fingerprint="g", home=Path("nowhere"))
    assert DOOR.patient_key("north", "4711") != other.patient_key("north", "4711")
    assert DOOR.content_hash(b"scan") != other.content_hash(b"scan")


def test_parts_of_a_series_have_keys_of_their_own() -> None:
    keys = {DOOR.series_key("north", "1.2.3", part) for part in range(50)}
    assert len(keys) == 50
    assert DOOR.part_key(DOOR.series_base("north", "1.2.3"), 7) == DOOR.series_key("north", "1.2.3", 7)


@given(st.lists(st.dates(date(1990, 1, 1), date(2100, 1, 1)), min_size=2, max_size=6), text)
def test_moved_dates_keep_weekday_order_and_intervals(days: list[date], site: str) -> None:
    moved = [shifted for day in days if (shifted := DOOR.shift_date(site, day)) is not None]
    assert [day.weekday() for day in moved] == [day.weekday() for day in days]
    assert [b - a for a, b in pairwise(moved)] == [b - a for a, b in pairwise(days)]
    assert all(after <= day - timedelta(weeks=52) for day, after in zip(days, moved, strict=True))


def test_each_site_has_an_offset_of_its_own() -> None:
    day = date(2026, 1, 1)
    assert len({DOOR.shift_date(f"site{n}", day) for n in range(20)}) > 15
    assert DOOR.shift_date("north", None) is None
