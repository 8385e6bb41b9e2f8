"""Training curves as one small drawing: where its lines and ticks lie, in pixels from the upper left corner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

WIDTH_PX, HEIGHT_PX = 620, 236
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 62, 602, 10, 190
"""Of the frame; around it is room for what the axes say."""
N_STYLES = 6
"""Lines that colour and dashes tell apart (`page.css`)."""
MOST_TICKS = 6
LEAST_SPREAD = 0.01
"""Of a scale, relative and in units: what moves less is drawn as flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The curve of one strategy."""

    name: str
    style: int
    points: str
    """Of an SVG polyline."""
    end: tuple[float, float]
    """x, y: so that a curve of one epoch is seen too."""
    first: float
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """All curves on one scale; ticks as pixel and text."""

    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


def drawing_of(curves: Mapping[str, Sequence[float]]) -> Drawing | None:
    """One line per strategy, epochs to the right; None if nobody has a curve.

    Args:
        curves: Per strategy the loss of every epoch; an epoch without a finite loss is left out.
    """
    known = {name: [(n, v) for n, v in enumerate(curve, start=1) if isfinite(v)] for name, curve in curves.items()}
    known = {name: steps for name, steps in known.items() if steps}
    if not known:
        return None
    losses = [loss for steps in known.values() for _, loss in steps]
    across = ticks(0, max(epoch for steps in known.values() for epoch, _ in steps), least_step=1)
    upward = ticks(min(losses), max(losses))

    def place(epoch: float, loss: float) -> tuple[float, float]:
        x = LEFT_PX + (RIGHT_PX - LEFT_PX) * epoch / across[-1]
        y = BOTTOM_PX - (BOTTOM_PX - TOP_PX) * (loss - upward[0]) / (upward[-1] - upward[0])
        return round(x, 1), round(y, 1)

    lines = []
    for number, (name, steps) in enumerate(known.items()):
        at = [place(*step) for step in steps]
        points, first, last = " ".join(f"{x},{y}" for x, y in at), steps[0][1], steps[-1][1]
        lines.append(Line(name=name, style=number % N_STYLES, points=points, end=at[-1], first=first, last=last))
    digits = max(0, -floor(log10(upward[1] - upward[0]) + 1e-9))
    return Drawing(
        lines=lines,
        x_ticks=[(place(tick, upward[0])[0], f"{tick:.0f}") for tick in across],
        y_ticks=[(place(0, tick)[1], f"{tick:.{digits}f}") for tick in upward],
    )


def ticks(low: float, high: float, *, least_step: float = 0) -> list[float]:
    """Two to seven round numbers from at most `low` to at least `high`, 1, 2 or 5 times a power of ten apart."""
    high = max(high, low + LEAST_SPREAD * max(abs(low), 1.0))
    rough = (high - low) / (MOST_TICKS - 1)
    power = 10.0 ** floor(log10(rough))
    step = max(least_step, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9)))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
