import os
import random
import tracemalloc
from pathlib import Path

import pytest

from platform_core.errors import NoSuchPlace, SiteUnavailable
from platform_core.settings import SiteSettings
from platform_core.sources import files
from platform_core.sources.contract import list_items
from platform_core.sources.files import list_files, read_file
from platform_core.sources.folder import FOLDER


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def listed(root: Path) -> dict[str, str]:
    return {item.address: item.refusal for item in list_items(FOLDER, SiteSettings(quiet_s=0, path=str(root)))}


def test_a_link_that_leads_out_is_listed_as_refused_and_not_read(root: Path) -> None:
    (root / "out").symlink_to("../secret")
    (root / "up").symlink_to("..")
    assert listed(root) == {"out": "link_leads_out", "up": "link_leads_out"}
    for address in ("out", "up/secret"):
        with pytest.raises(NoSuchPlace):
            read_file(root, address)


def test_a_link_to_something_inside_is_what_it_points_to_once(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "1").write_bytes(b"1")
    (root / "again").symlink_to("a/1")
    (root / "b").symlink_to("a")
    (root / "a" / "loop").symlink_to("..")
    (root / "nowhere").symlink_to("not/there")
    (root / "self").symlink_to("self")
    assert {address for address, refusal in listed(root).items() if not refusal} == {"a/1", "again"}
    assert read_file(root, "again") == b"1"


def test_a_file_that_became_a_link_after_it_was_listed_is_not_followed(root: Path) -> None:
    (root / "x").mkdir()
    (root / "x" / "secret").write_bytes(b"fine")
    assert read_file(root, "x/secret") == b"fine"
    (root / "x").rename(root / "y")
    (root / "x").symlink_to("..")
    with pytest.raises(NoSuchPlace, match="links must not lead out"):
        read_file(root, "x/secret")


def test_a_place_whose_name_only_begins_alike_is_outside(root: Path) -> None:
    other = root.with_name("scans-of-another")
    other.mkdir()
    (other / "1").write_bytes(b"1")
    (root / "l").symlink_to("../scans-of-another/1")
    assert listed(root) == {"l": "link_leads_out"}


def test_the_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (root / "1").write_bytes(b"1")
    (tmp_path / "mounted").symlink_to(root)
    assert listed(tmp_path / "mounted") == {"1": ""}
    assert read_file(tmp_path / "mounted", "1") == b"1"


def test_what_is_no_file_is_left_out_and_does_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    assert listed(root) == {}
    for address in ("pipe", "folder"):
        with pytest.raises(NoSuchPlace):
            read_file(root, address)


def test_a_name_in_another_encoding_is_text_and_still_opens(root: Path) -> None:
    (root / os.fsdecode(b"M\xfcller")).mkdir()
    (root / os.fsdecode(b"M\xfcller/\xe9.zip")).write_bytes(b"no zip")
    (root / os.fsdecode(b"M\xfcller/\xe4")).write_bytes(b"1")
    found = listed(root)
    assert sorted(found.values()) == ["", "unreadable_archive"]
    address = next(address for address, refusal in found.items() if not refusal)
    assert address.encode("utf-8").decode() == address
    assert read_file(root, address) == b"1"


def test_a_very_deep_folder_is_listed_as_far_as_it_can_be_opened(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        here, outer = os.open("d" * 200, os.O_RDONLY, dir_fd=here), here
        os.close(outer)
    os.close(here)
    assert list(listed(root).values()) == ["unreadable_path"]


def test_a_thousand_nested_folders_are_walked(root: Path) -> None:
    folders = [root]
    for _ in range(1000):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    file = folders[-1] / "1"
    file.write_bytes(b"1")
    try:
        assert [address[-3:] for address in listed(root)] == ["d/1"]
    finally:  # who cleans up after tests would go in too deep
        file.unlink()
        for folder in reversed(folders[1:]):
            folder.rmdir()


def test_a_folder_that_may_not_be_read_is_one_item_and_a_share_that_went_away_stops_the_listing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").mkdir()
    (root / "b").write_bytes(b"1")
    scandir, trouble = os.scandir, 13

    def refuse(path: str) -> object:
        if path.endswith("/a"):
            raise OSError(trouble, "no")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert listed(root) == {"a/": "unreadable_path", "b": ""}
    trouble = 116  # ESTALE: stale file handle of a network share
    with pytest.raises(SiteUnavailable):
        listed(root)


def tree(root: Path, dice: random.Random) -> list[str]:
    names = ["a", "a.b", "a-b", "b", "Z", "zip", "\u00e9"]
    addresses = set()
    for _ in range(60):
        parts = [dice.choice(names) for _ in range(dice.randint(0, 3))]
        path = root.joinpath(*parts, str(dice.randint(0, 9)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
        addresses.add(path.relative_to(root).as_posix())
    return sorted(addresses)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("at_once", [2, 5, 50])
def test_a_listing_goes_on_behind_any_file_however_many_names_are_held(
    root: Path, monkeypatch: pytest.MonkeyPatch, seed: int, at_once: int
) -> None:
    monkeypatch.setattr(files, "NAMES_AT_ONCE", at_once)
    there = tree(root, random.Random(seed))
    found = [item.address for page in list_files(root) for item in page.items]
    assert sorted(found) == there
    for n, address in enumerate(found):
        rest = [item.address for page in list_files(root, f"0/{address}") for item in page.items]
        assert rest == found[n + 1 :]


def test_a_listing_goes_on_where_its_last_file_was_deleted(root: Path) -> None:
    for name in ("a/1", "a/2", "b/1", "c"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"1")
    for name in ("a/1", "a/2"):
        (root / name).unlink()
    (root / "a").rmdir()
    assert [item.address for page in list_files(root, "0/a/1") for item in page.items] == ["b/1", "c"]


def test_memory_does_not_grow_with_the_files_of_one_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "NAMES_AT_ONCE", 500)
    peaks = []
    for n_files in (2000, 8000):
        for n in range(n_files):
            (root / f"{n:06}").touch()
        tracemalloc.start()
        n_listed = sum(len(page.items) for page in list_files(root))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_listed == n_files
    assert peaks[1] < 1.5 * peaks[0]
