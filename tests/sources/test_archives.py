import contextlib
import io
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_core.errors import NoSuchPlace, UnreadableScan
from platform_core.settings import SiteSettings
from platform_core.sources import archives
from platform_core.sources.contract import Item, list_items
from platform_core.sources.folder import FOLDER

Listed = dict[str, str]


@pytest.fixture
def place(tmp_path: Path) -> SiteSettings:
    return SiteSettings(quiet_s=0, path=str(tmp_path))


def listed(place: SiteSettings) -> Listed:
    return {item.address: item.refusal for item in list_items(FOLDER, place)}


def write(place: SiteSettings, members: dict[str, bytes], name: str = "a.zip", method: int = 8) -> Path:
    file = Path(place.path, name)
    with zipfile.ZipFile(file, "w", method) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data, method)
    return file


def test_an_archive_is_its_members_by_name(place: SiteSettings) -> None:
    write(place, {"b": b"2", "a/x": b"11", "a/": b"", ".DS_Store": b"x", "__MACOSX/a/._x": b"x", "./c": b"3"}, "A.ZIP")
    assert listed(place) == {"A.ZIP!./c": "", "A.ZIP!a/x": "", "A.ZIP!b": ""}
    assert FOLDER.open(place, "A.ZIP!a/x") == b"11"
    assert [item.n_bytes for item in list_items(FOLDER, place)] == [1, 2, 1]


def test_an_archive_that_was_replaced_is_read_anew(place: SiteSettings) -> None:
    write(place, {"a": b"one"})
    assert FOLDER.open(place, "a.zip!a") == b"one"
    write(place, {"a": b"two"}, "later").rename(Path(place.path, "a.zip"))
    assert FOLDER.open(place, "a.zip!a") == b"two"
    Path(place.path, "a.zip").unlink()
    with pytest.raises(NoSuchPlace):
        FOLDER.open(place, "a.zip!a")


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/passwd", "C:/a", "c:a", "a\\b", "..\\a", "~/a", "a\nb", ".."]
)
def test_a_name_that_means_something_to_a_file_system_is_refused(place: SiteSettings, name: str) -> None:
    write(place, {name: b"x", "good": b"y"})
    assert listed(place) == {f"a.zip!{name}": "unsafe_member_name", "a.zip!good": ""}
    with pytest.raises(UnreadableScan, match="unsafe_member_name"):
        FOLDER.open(place, f"a.zip!{name}")


def test_nothing_is_ever_written(place: SiteSettings, tmp_path: Path) -> None:
    write(place, {"../../out": b"x", "a": b"y"})
    before = sorted(tmp_path.parent.rglob("*"))
    assert FOLDER.open(place, "a.zip!a") == b"y"
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_two_members_of_one_name_are_refused(place: SiteSettings) -> None:
    with zipfile.ZipFile(Path(place.path, "a.zip"), "w") as archive:
        archive.writestr("x", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x", b"2")
    assert listed(place) == {"a.zip!x": "ambiguous_member"}


def test_an_archive_in_an_archive_is_not_opened(place: SiteSettings) -> None:
    write(place, {"b.zip": b"PK", "c.tar.gz": b"x", "brain.nii.gz": b"x"})
    assert listed(place) == {
        "a.zip!b.zip": "nested_archive",
        "a.zip!c.tar.gz": "nested_archive",
        "a.zip!brain.nii.gz": "",
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_whose_output_cannot_be_bounded_is_refused(place: SiteSettings, method: int) -> None:
    write(place, {"a": b"x" * 100}, method=method)
    assert listed(place) == {"a.zip!a": "unsupported_compression"}


def test_a_link_in_an_archive_is_refused(place: SiteSettings) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(Path(place.path, "a.zip"), "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert listed(place) == {"a.zip!link": "unsafe_member_kind"}


def patched(file: Path, change: Callable[[bytearray, int], None]) -> None:
    """Change the entries of the table of contents."""
    data, at = bytearray(file.read_bytes()), 0
    while (at := data.find(b"PK\1\2", at)) >= 0:
        change(data, at)
        at += 4
    file.write_bytes(data)


def test_a_member_with_a_password_is_refused_and_an_archive_of_such_as_a_whole(place: SiteSettings) -> None:
    file = write(place, {"a": b"1", "b": b"2"})
    patched(file, lambda data, at: data.__setitem__(at + 8, data[at + 8] | 1) if data[at + 46] == ord("a") else None)
    assert listed(place) == {"a.zip!a": "encrypted_member", "a.zip!b": ""}
    patched(file, lambda data, at: data.__setitem__(at + 8, data[at + 8] | 1))
    assert listed(place) == {"a.zip": "encrypted_archive"}


def test_a_member_gives_no_more_than_the_archive_states(place: SiteSettings) -> None:
    file = write(place, {"a": bytes(10**6)})
    patched(file, lambda data, at: struct.pack_into("<I", data, at + 24, 1000))
    assert [item.n_bytes for item in list_items(FOLDER, place)] == [1000]
    with pytest.raises(UnreadableScan, match="damaged_member"):
        FOLDER.open(place, "a.zip!a")


def test_a_member_smaller_than_stated_is_damaged(place: SiteSettings) -> None:
    file = write(place, {"a": bytes(1000)})
    patched(file, lambda data, at: struct.pack_into("<I", data, at + 24, 5000))
    with pytest.raises(UnreadableScan, match="damaged_member"):
        FOLDER.open(place, "a.zip!a")


def test_a_bomb_is_one_item(place: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    write(place, {f"{n}": bytes(10**6) for n in range(3)})
    assert listed(place) == {"a.zip": "archive_bomb"}


def test_members_that_overlap_count_as_often_as_they_are_named(
    place: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quine of one kernel under many names (Fifield 2019) is dense only as a whole."""
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    kernel = random.Random(0).randbytes(2000) * 5
    file = write(place, {f"{n:03}": kernel if n == 0 else b"" for n in range(100)})

    def repeat(data: bytearray, at: int) -> None:
        data[at + 10 : at + 28] = first[10:28]
        data[at + 42 : at + 46] = first[42:46]

    data = file.read_bytes()
    first = data[data.find(b"PK\1\2") :]
    assert set(listed(place).values()) == {""}
    patched(file, repeat)
    monkeypatch.setattr(archives, "MAX_RATIO", 50)
    assert listed(place) == {"a.zip": "archive_bomb"}


def test_one_member_may_be_a_bomb_among_others(place: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    write(place, {"bomb": bytes(10**6), "filler": os.urandom(50_000)})
    assert listed(place) == {"a.zip!bomb": "archive_bomb", "a.zip!filler": ""}
    with pytest.raises(UnreadableScan, match="archive_bomb"):
        FOLDER.head(place, "a.zip!bomb", 10)


@pytest.mark.parametrize(
    ("limit", "code"), [("MAX_MEMBERS", "a.zip"), ("MAX_CONTENTS_BYTES", "a.zip"), ("MAX_TOTAL_BYTES", "a.zip")]
)
def test_an_archive_beyond_a_limit_is_one_item(
    place: SiteSettings, monkeypatch: pytest.MonkeyPatch, limit: str, code: str
) -> None:
    monkeypatch.setattr(archives, limit, 4)
    write(place, {f"{n}": b"x" for n in range(5)})
    assert listed(place) == {code: "archive_bomb"}


def test_a_claim_of_many_members_is_refused_before_they_are_read(
    place: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(place, {"a": b"x"})
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, len(data) - 10, 0xFFFFFF00)
    file.write_bytes(data)
    monkeypatch.setattr(archives, "ZipFile", None)
    assert listed(place) == {"a.zip": "archive_bomb"}


def test_a_large_archive_of_the_64_bit_form_is_read(place: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    write(place, {f"{n}": b"x" for n in range(5)})
    assert b"PK\6\6" in Path(place.path, "a.zip").read_bytes()
    assert len(listed(place)) == 5
    archives.forget()
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    assert listed(place) == {"a.zip": "archive_bomb"}


def test_a_plain_file_that_looks_like_a_member_is_refused(place: SiteSettings) -> None:
    Path(place.path, "x.zip!y").write_bytes(b"z")
    assert listed(place) == {"x.zip!y": "ambiguous_name"}


def checked(place: SiteSettings) -> None:
    """Whatever lies there: it is listed, opens or is refused, and never gives more than it states."""
    for item in list_items(FOLDER, place):
        if item.refusal:
            continue
        with contextlib.suppress(UnreadableScan):
            assert len(FOLDER.open(place, item.address)) == item.n_bytes


def sound() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b", b"12345" * 20)
        archive.writestr("c", b"6789", zipfile.ZIP_STORED)
    return out.getvalue()


def test_an_archive_torn_at_any_byte_is_unreadable(place: SiteSettings) -> None:
    data = sound()
    for n in range(len(data)):
        Path(place.path, "a.zip").write_bytes(data[:n])
        assert listed(place) == {"a.zip": "unreadable_archive"}


@pytest.mark.parametrize("value", [0x00, 0xFF, 0x7F])
def test_any_byte_may_be_wrong(place: SiteSettings, value: int) -> None:
    data = sound()
    for n in range(len(data)):
        Path(place.path, "a.zip").write_bytes(data[:n] + bytes([value]) + data[n + 1 :])
        checked(place)


def test_any_four_bytes_may_lie(place: SiteSettings) -> None:
    data, dice = sound(), random.Random(1)
    for _ in range(400):
        at = dice.randrange(len(data))
        lie = dice.choice([b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0", dice.randbytes(4)])
        Path(place.path, "a.zip").write_bytes((data[:at] + lie + data[at + 4 :])[: len(data)])
        checked(place)


def test_every_code_is_in_the_table() -> None:
    text = Path(str(archives.__file__)).read_text()
    told: Any = str(archives.__doc__)
    for code in ("unreadable_archive", "encrypted_archive", "archive_bomb", "encrypted_member", "member_too_large"):
        assert text.count(code) > told.count(code) > 0


def test_what_changes_place_between_listing_and_opening_is_gone_not_wrong(place: SiteSettings) -> None:
    archive = Item("b.zip", 1, 1)

    def vanish() -> Any:
        raise NoSuchPlace("a file of the source", "a file", "run again")

    assert list(archives.members(archive, vanish)) == []
