"""Text drawn into images, for the tests and the benchmark of the look for burned-in text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Plane = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image with text in it, and by how much of the image's range text and background differ."""

    plane: Plane
    contrast_fraction: float
    height_px: int
    """Of the line of text, across its direction."""


def font_of(path: str | None, size: int) -> Any:
    """A font; without a path the one that Pillow brings."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def draw_text(
    plane: Plane, text: str, font: Any, value: float, place: tuple[int, int], quarter_turns: int = 0
) -> Drawn:
    """Draw text with its upper left corner at (y, x), its strokes at a stored value, edges smooth as Pillow makes them.

    Raises:
        ValueError: If the text does not fit.
    """
    mask = np.rot90(_mask(text, font), quarter_turns)
    y, x = place
    height, width = mask.shape
    region = plane[y : y + height, x : x + width].astype(float)
    if region.shape != mask.shape:
        raise ValueError("the text does not fit")
    drawn = plane.astype(float)
    drawn[y : y + height, x : x + width] = region * (1 - mask) + value * mask
    span = float(np.subtract(*np.percentile(plane, (99, 1)))) or 1.0
    return Drawn(drawn.round().astype(plane.dtype), abs(value - float(region.mean())) / span, min(mask.shape))


def _mask(text: str, font: Any) -> Plane:
    """Coverage of each pixel, 0 to 1, no wider than the text."""
    is_bitmap = not isinstance(font, ImageFont.FreeTypeFont)
    left, top, right, bottom = (int(side) for side in font.getbbox(text))
    canvas = Image.new("1" if is_bitmap else "L", (right - left + 4, bottom - top + 4), 0)
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, fill=255, font=font)
    return np.asarray(canvas.convert("L"), dtype=float) / 255
