"""Text burned into pixels: what is refused unseen, and what the look finds and lets pass."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFont

from platform_core.dicom.burned_in import (
    SCREENS,
    Marks,
    ScreenRule,
    has_text_like_regions,
    is_at_risk,
    refusal_by_rule,
)
from platform_core.dicom.glyphs import MIN_GLYPHS
from tests.dicom.text_images import Plane, draw_text, font_of

SOUND = Marks(
    sop_class="1.2.840.10008.5.1.4.1.1.1.1",
    modality="DX",
    image_type="ORIGINAL\\PRIMARY",
    burned_in_annotation="NO",
    manufacturer="ACME",
    scanner_model="Scan 1",
    n_rows=2000,
    n_columns=2000,
)


def chest(side: int = 400, noise: float = 15.0, seed: int = 0) -> Plane:
    """Twelve bits: two dark fields on a bright ground, with noise."""
    y, x = np.mgrid[:side, :side] / side
    lungs = np.exp(-((y - 0.5) ** 2) / 0.08) * (np.exp(-((x - 0.3) ** 2) / 0.02) + np.exp(-((x - 0.7) ** 2) / 0.02))
    values = 2600 - 1800 * lungs + np.random.default_rng(seed).normal(0, noise, (side, side))
    return np.asarray(np.clip(values, 0, 4095), dtype=np.uint16)


def look(plane: Plane, modality: str = "DX") -> Any:
    return has_text_like_regions(plane[None], modality)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"burned_in_annotation": "YES"}, "burned_in_stated"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.7.4"}, "secondary_capture"),
        ({"conversion_type": "WSD"}, "secondary_capture"),
        ({"capture_device": "20260105"}, "secondary_capture"),
        ({"image_type": "DERIVED\\SECONDARY\\SCREEN SAVE"}, "screen_save"),
        ({"series_description": "Saved screen"}, "screen_save"),
        ({"image_type": "DERIVED\\PRIMARY\\DOSE_INFO"}, "dose_screen"),
        ({"series_description": "Dose Report"}, "known_screen"),
        ({"modality": "PT", "manufacturer": "Philips", "scanner_model": "GEMINI TF", "n_rows": 446, "n_columns": 245},
         "known_screen"),
        ({"modality": "US"}, "screen_modality"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.77.1.4"}, "screen_modality"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.6.1", "modality": ""}, "screen_modality"),
    ],
)  # fmt: skip
def test_a_rule_refuses_what_it_names(stated: dict[str, Any], reason: str) -> None:
    assert refusal_by_rule(replace(SOUND, **stated)) == reason


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "CT", "MR", "PT"])
def test_a_sound_header_is_refused_by_no_rule(modality: str) -> None:
    assert refusal_by_rule(replace(SOUND, modality=modality)) is None


def test_a_class_whose_number_only_begins_alike_is_not_a_screen() -> None:
    """77 is visible light, 7 secondary capture; 1.1 is a radiograph; 66 is raw data."""
    for tail in ("1.1", "2", "4.1", "128", "66"):
        assert refusal_by_rule(replace(SOUND, sop_class=f"1.2.840.10008.5.1.4.1.1.{tail}")) is None


def test_no_rule_of_a_vendor_is_met_by_everything() -> None:
    assert not any(rule.is_met(Marks()) for rule in SCREENS)
    assert all(rule != ScreenRule() for rule in SCREENS)


@pytest.mark.parametrize(
    ("modality", "image_type", "expected"),
    [
        ("DX", "ORIGINAL\\PRIMARY", True),
        ("", "", True),
        ("CT", "ORIGINAL\\PRIMARY\\AXIAL", False),
        ("CT", "DERIVED\\PRIMARY\\MPR", True),
        ("MR", "ORIGINAL\\SECONDARY", True),
        ("MR", "", False),
    ],
)
def test_slices_are_looked_at_only_if_something_made_them_later(modality: str, image_type: str, expected: bool) -> None:
    assert is_at_risk(Marks(modality=modality, image_type=image_type)) is expected


def test_a_header_that_denies_text_is_not_believed() -> None:
    assert is_at_risk(replace(SOUND, burned_in_annotation="NO"))


@pytest.mark.parametrize("value", [4095, 0], ids=["white", "black"])
@pytest.mark.parametrize("quarter_turns", [0, 1, 3])
@pytest.mark.parametrize("size", [14, 20, 32])
@pytest.mark.parametrize("text", ["MUSTERMANN ERIKA", "Anna Schmidt", "ID 4711089"])
def test_a_name_or_number_is_found_where_it_stands(value: int, quarter_turns: int, size: int, text: str) -> None:
    plane = chest()
    drawn = draw_text(plane, text, font_of(None, size), value, (30, 40), quarter_turns).plane
    found = look(drawn)
    assert found is not None
    changed = np.argwhere(drawn != plane)
    top, bottom, left, right = found.line.box
    assert changed[:, 0].min() - 1 <= top < bottom <= changed[:, 0].max() + 2
    assert changed[:, 1].min() - 1 <= left < right <= changed[:, 1].max() + 2


def test_the_small_font_of_a_screen_is_found() -> None:
    drawn = draw_text(chest(), "MUSTERMANN ERIKA", ImageFont.load_default_imagefont(), 4095, (30, 40)).plane
    assert look(drawn) is not None


@pytest.mark.parametrize("plane", [chest(seed=seed, noise=noise) for seed in range(4) for noise in (0, 15, 150)])
def test_an_image_without_text_passes(plane: Plane) -> None:
    assert look(plane) is None


@pytest.mark.parametrize("marker", ["L", "R", "PA", "R 2"])
@pytest.mark.parametrize("size", [20, 40])
def test_a_side_marker_passes(marker: str, size: int) -> None:
    assert look(draw_text(chest(), marker, font_of(None, size), 4095, (30, 300)).plane) is None


def test_wires_edges_and_screws_pass() -> None:
    """What is sharp in a radiograph and is no text: cables at a slant, a collimator, a row of round clips."""
    picture = Image.fromarray(np.asarray(chest(), dtype=np.int32), mode="I")
    pen = ImageDraw.Draw(picture)
    pen.line([(20, 20), (380, 90)], fill=4095, width=3)
    pen.line([(350, 10), (300, 390)], fill=4095, width=2)
    pen.polygon([(0, 0), (8, 0), (14, 400), (0, 400)], fill=0)
    for x in range(60, 340, 22):
        pen.ellipse([(x, 200), (x + 8, 208)], fill=4095)
    assert look(np.asarray(picture, dtype=np.uint16)) is None


def test_the_plane_with_the_text_is_named_and_what_it_says_is_not() -> None:
    stack = np.stack([chest(seed=seed) for seed in range(3)])
    stack[2] = draw_text(stack[2], "MUSTERMANN", font_of(None, 24), 4095, (30, 40)).plane
    found = has_text_like_regions(stack, "DX")
    assert found is not None
    assert found.plane == 2
    assert found.line.n_glyphs >= MIN_GLYPHS
    assert "image 3" in found.detail
    assert "MUSTER" not in found.detail


def test_in_slices_only_text_of_the_largest_value_counts() -> None:
    plane = chest()
    plane[0, 0] = 4095
    white, grey, black = (
        draw_text(plane, "MUSTERMANN ERIKA", font_of(None, 20), value, (30, 40)).plane for value in (4095, 3600, 0)
    )
    assert look(white, "CT") is not None
    assert look(grey, "DX") is not None
    assert look(grey, "CT") is None
    assert look(black, "CT") is None


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_the_kind_of_number_does_not_matter(kind: Any) -> None:
    drawn = draw_text(chest(noise=5) // 17, "MUSTERMANN ERIKA", font_of(None, 20), 255, (30, 40)).plane
    found = look(drawn.astype(kind))
    assert found == look(drawn)
    assert found is not None


def test_inverting_an_image_hides_nothing() -> None:
    drawn = draw_text(chest(), "MUSTERMANN ERIKA", font_of(None, 20), 4095, (30, 40)).plane
    assert look(4095 - drawn) is not None


def test_the_whole_range_of_sixteen_bits_does_not_overflow() -> None:
    plane = (chest(noise=5).astype(np.int32) * 15).astype(np.uint16)
    assert look(draw_text(plane, "MUSTERMANN ERIKA", font_of(None, 20), 65535, (30, 40)).plane) is not None
    assert look(plane) is None


@given(arrays.arrays(np.int16, arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=24)))
def test_any_pixels_are_looked_at_without_an_error(pixels: Plane) -> None:
    has_text_like_regions(pixels, "DX")
    has_text_like_regions(np.full_like(pixels, pixels.flat[0]), "CT")


def test_a_fourth_axis_is_looked_through() -> None:
    stack = np.stack([chest(side=200, seed=seed) for seed in range(4)]).reshape(2, 2, 200, 200)
    stack[1, 0] = draw_text(stack[1, 0], "MUSTERMANN", font_of(None, 20), 4095, (30, 20)).plane
    found = has_text_like_regions(stack, "XA")
    assert found is not None
    assert found.plane == 2


def test_a_word_that_only_holds_the_word_save_is_no_screen() -> None:
    """It came up in a planted name, once in 750 batches, and stopped the ingest."""
    assert refusal_by_rule(Marks(modality="MR", series_description="axial Bisavepame")) is None
    assert refusal_by_rule(Marks(modality="MR", series_description="Screen Save 3")) == "screen_save"
