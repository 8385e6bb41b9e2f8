from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from platform_core.errors import NoSuchPlace
from platform_core.settings import SiteSettings
from platform_core.sources.contract import list_items
from platform_core.sources.image_folder import IMAGE_FOLDER


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "x.npz"
    stacks = {f"{split}_images": np.full((3, 2, 2), n, np.uint8) for n, split in enumerate(("train", "val", "test"))}
    np.savez(file, train_labels=np.zeros(3), **stacks)  # type: ignore[arg-type]
    return file


def addresses(path: str) -> list[str]:
    return [item.address for item in list_items(IMAGE_FOLDER, SiteSettings(quiet_s=0, path=path))]


def test_members_of_an_archive_are_items(archive: Path) -> None:
    found = addresses(str(archive))
    assert len(found) == 9
    assert found[0] == "x.npz#test/0"
    assert addresses(str(archive.parent)) == found


def test_one_split_can_be_named(archive: Path) -> None:
    settings = SiteSettings(quiet_s=0, path=f"{archive}#val")
    assert addresses(settings.path) == ["x.npz#val/0", "x.npz#val/1", "x.npz#val/2"]
    assert np.load(BytesIO(IMAGE_FOLDER.open(settings, "x.npz#val/2"))).tolist() == [[1, 1], [1, 1]]


def test_a_split_that_is_not_there_is_named_with_those_that_are(archive: Path) -> None:
    with pytest.raises(NoSuchPlace, match="test, train, val"):
        addresses(f"{archive}#validation")


def test_an_archive_of_something_else_is_one_item(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", layer=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK not really")
    assert addresses(str(tmp_path)) == ["broken.npz", "weights.npz"]


@pytest.mark.parametrize("address", ["x.npz#train/99", "x.npz#other/0", "y.npz#train/0"])
def test_an_image_that_is_gone_is_said_to_be_gone(archive: Path, address: str) -> None:
    with pytest.raises(NoSuchPlace):
        IMAGE_FOLDER.open(SiteSettings(quiet_s=0, path=str(archive)), address)
