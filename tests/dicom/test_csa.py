"""Siemens mosaics, against nibabel's reader as the independent oracle."""

import warnings
from pathlib import Path
from typing import Any

import pydicom
import pytest

from platform_core.dicom.csa import mosaic_facts, parse_csa, tiles_per_side
from platform_core.dicom.elements import EMPTY, parse


def mosaics(test_data: Path) -> Any:
    return [
        *sorted((test_data / "dicom/dcm_qa_ts/In").iterdir()),
        *(test_data / "dicom/dcm_qa_nih/In/20180918Si/mr_0003").iterdir(),
    ]


def test_the_csa_header_is_read_as_nibabel_reads_it(test_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.csareader import get_csa_header
    files = mosaics(test_data)
    assert len(files) > 9
    for file in files:
        dataset = pydicom.dcmread(file)
        oracle = get_csa_header(dataset, "image")["tags"]
        n_tiles, normal = mosaic_facts(parse(file.read_bytes()))
        assert n_tiles == oracle["NumberOfImagesInMosaic"]["items"][0]
        assert normal is not None
        assert list(normal) == oracle["SliceNormalVector"]["items"]


@pytest.mark.parametrize(("n_tiles", "side"), [(1, 1), (4, 2), (5, 3), (9, 3), (35, 6), (36, 6), (37, 7)])
def test_tiles_fill_the_smallest_square(n_tiles: Any, side: Any) -> None:
    assert tiles_per_side(n_tiles) == side


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SV10",
        b"SV10\x04\x03\x02\x01\xff\xff\xff\xffM\x00\x00\x00",
        b"\x01\x00\x00\x00M\x00\x00\x00" + b"\xff" * 200,
    ],
)
def test_broken_private_bytes_say_nothing(data: bytes) -> None:
    assert parse_csa(data, {"NumberOfImagesInMosaic"}) == {}


def test_a_file_without_private_elements_is_no_mosaic() -> None:
    assert mosaic_facts(EMPTY) == (0, None)
