"""What is no image is set aside by its rule, also where a place tells the series without a look at the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from platform_core.manifest.reading import Room, open_file, read_series
from tests.conftest import save

Slice = Callable[..., Dataset]

ASIDE: dict[str, tuple[dict[str, Any], str]] = {
    "report": ({"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "not_an_image"),
    "presentation": ({"Modality": "PR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "not_an_image"),
    "key objects": ({"Modality": "KO", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.59"}, "not_an_image"),
}
NO_PIXELS = dict.fromkeys(("Rows", "Columns", "PixelData"))


@pytest.fixture(params=[*ASIDE, "ultrasound"])
def aside(request: pytest.FixtureRequest, make_slice: Slice, tmp_path: Path) -> tuple[bytes, str]:
    if request.param == "ultrasound":
        return bytes_of(tmp_path, make_slice(0, (0, 0, 0), Modality="US", NumberOfFrames=3)), "other_modality"
    elements, rule = ASIDE[request.param]
    return bytes_of(tmp_path, make_slice(0, (0, 0, 0), **(NO_PIXELS | elements))), rule


def bytes_of(folder: Path, slice_: Dataset) -> bytes:
    return save(folder / "file", slice_).read_bytes()


def test_a_file_that_a_rule_sets_aside_is_not_refused_for_what_it_lacks(aside: tuple[bytes, str]) -> None:
    data, rule = aside
    file = open_file(data, Room(1))
    assert (file.rule, file.refusal) == (rule, None)


def test_a_file_that_a_rule_sets_aside_spoils_no_series(
    aside: tuple[bytes, str], make_slice: Slice, tmp_path: Path
) -> None:
    room = Room(4)
    slices = [bytes_of(tmp_path, make_slice(n, (0, 0, 2 * n))) for n in range(3)]
    reading = read_series([open_file(data, room) for data in (*slices, aside[0])], room, lambda _: False)
    (part,) = reading.parts
    assert (part.geometry, part.files) == ("regular", (0, 1, 2))
