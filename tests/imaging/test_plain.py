from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from platform_core.errors import UnreadableScan
from platform_core.imaging.nifti import encode_volume
from platform_core.imaging.plain import decode_image, image_format
from platform_core.imaging.volume import Geometry, Volume

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def coded(pixels: Any, kind: str = "PNG", mode: Any = None, **options: Any) -> Any:
    out = BytesIO()
    Image.fromarray(pixels, mode).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "pixels",
    [GREY, GREY.astype(np.uint16) * 300, np.dstack([GREY] * 3), np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])],
    ids=["8 bit", "16 bit", "grey as colour", "opaque"],
)
def test_a_grey_png_keeps_its_values(pixels: Any) -> None:
    volume = decode_image(coded(pixels))
    assert volume.geometry is None
    assert volume.voxels.shape == (1, 3, 4)
    np.testing.assert_array_equal(volume.voxels[0], pixels if pixels.ndim == 2 else pixels[..., 0])


def test_a_jpeg_is_read() -> None:
    volume = decode_image(coded(np.full((8, 8), 77, np.uint8), "JPEG", quality=95))
    assert np.abs(volume.voxels.astype(int) - 77).max() <= 2


def test_a_numpy_array_is_read() -> None:
    out = BytesIO()
    np.save(out, GREY)
    np.testing.assert_array_equal(decode_image(out.getvalue()).voxels[0], GREY)


def test_a_nifti_keeps_its_geometry() -> None:
    volume = Volume(np.ones((2, 3, 4), np.int16), Geometry((1.0, 2.0, 3.0)))
    assert decode_image(encode_volume(volume)).geometry == volume.geometry


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a text", "not_an_image"),
        (coded(GREY)[:40], "undecodable"),
        (coded(np.dstack([GREY, GREY, GREY // 2])), "colour"),
        (coded(np.dstack([GREY, GREY, GREY, np.full_like(GREY, 9)])), "colour"),
    ],
    ids=["text", "truncated", "colour", "transparent"],
)
def test_what_is_no_grey_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableScan) as refusal:
        decode_image(data)
    assert refusal.value.reason == reason


def test_the_format_is_told_by_the_first_bytes() -> None:
    assert image_format(coded(GREY)) == "png"
    assert image_format(b"file,patient_id\n") is None
