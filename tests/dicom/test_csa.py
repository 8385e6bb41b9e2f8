"""Siemens mosaics, against nibabel's reader as the independent oracle."""

import warnings
from pathlib import Path
from typing import Any

import pydicom
import pytest

from platform_core.dicom.csa import mosaic_facts, parse_csa, tiles_per_side
from platform_core.dicom.elements import EMPTY, parse
from platform_core.dicom.header import open_scan
from platform_core.dicom.mosaic import mosaic_header
from platform_core.dicom.pixels import decode
from platform_core.errors import UnreadableScan
from tests.dicom import corpus


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


def mosaic(n_tiles: str, side: int, **elements: Any) -> bytes:
    """A mosaic of 2 x 2 pixels per tile, if `side` tiles make one side of it."""
    how = corpus.depth(16, 16)
    facts: dict[str, Any] = {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}
    dataset = corpus.dataset_of(corpus.noise((2 * side, 2 * side), how), how, **(facts | elements))
    header = mosaic_header({"NumberOfImagesInMosaic": [n_tiles], "SliceNormalVector": ["0", "0", "1"]})
    dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    return corpus.coded(dataset)


def reason_of(data: bytes) -> str:
    with pytest.raises(UnreadableScan) as refusal:
        decode(open_scan(data))
    return refusal.value.reason


def test_a_mosaic_of_many_tiles_is_cut_into_all_of_them() -> None:
    scan = open_scan(mosaic("1000", 32))
    assert decode(scan).shape == (1000, 2, 2)
    assert len(scan.header.frames) == 1000


@pytest.mark.parametrize(("n_tiles", "reason"), [("1025", "too_large"), ("9801", "too_large"), ("-4", "mosaic")])
def test_a_count_of_tiles_that_no_scanner_writes_is_refused(n_tiles: str, reason: str) -> None:
    assert reason_of(mosaic(n_tiles, 99)) == reason


@pytest.mark.parametrize(("pixels", "reason"), [(bytes(8190), "truncated"), (None, "no_pixels")])
def test_a_mosaic_without_its_pixels_costs_no_tiles(pixels: bytes | None, reason: str) -> None:
    """A header of a kilobyte could claim to describe a thousand of them."""
    data = mosaic("1000", 32, PixelData=pixels)
    assert len(open_scan(data).header.frames) == 1
    assert reason_of(data) == reason


def test_tiles_are_placed_along_the_normal() -> None:
    data = mosaic("3", 2, ImagePositionPatient=[10.0, 20.0, 30.0])
    positions = [frame.position_mm for frame in open_scan(data).header.frames]
    assert positions == [(10.0 + 1.0, 20.0 + 1.5, 30.0 + 3.0 * k) for k in range(3)]
