"""Lines of glyph-like marks in an image: what text looks like to someone who cannot read.

A stroke is a run of pixels in one row between two sharp edges of opposite sense. Strokes
that touch from row to row are a glyph. Glyphs of one height, one tone and one baseline,
close to one another, some of them with several strokes in a row, are a line. A wire, a rib
or a collimator edge has strokes but no such line. Everything after the edges works on the
few strokes, not on the pixels, so the cost is that of a few passes over the image.

The bounds are ours, tuned as `tests/benchmarks/burned_in.py` says.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from platform_core.imaging.volume import Voxels

Index = npt.NDArray[np.intp]
Reals = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]
"""Top, bottom, left and right in pixels, ends exclusive."""

LEAST_EDGE, MOST_EDGE, NOISE_EDGE = 0.15, 0.30, 10.0
"""An edge climbs by 10 standard deviations of the steps between neighbours, but within these shares of the range."""
STEP = 0.3
"""Share of that climb which each of its steps must have."""
MIN_HEIGHT_PX = 5
MAX_SHARE, MAX_SMALL_PX = 0.1, 16
"""A glyph is at most this share of the image's longer side, in a small image at most so many pixels."""
MIN_FILL = 0.15
ALIKE, BASELINE, TONE, GAP, OVERLAP = 0.6, 0.2, 0.1, 2.0, 0.3
"""Neighbours in a line: ratio of heights; in heights, how far baselines differ, gap, overlap; of the range, tones."""
MAX_WIDTH = 2.5
"""A glyph is at most this many heights wide; two may touch."""
ON_LINE = 0.7
"""Share of the marks of a chain that must lie on its median baseline: a slanted wire drifts off it."""
MIN_GLYPHS = 4
"""A side marker (L, R, PA) has fewer; most names, dates and numbers have more."""
STROKES_PER_ROW, BRANCHED = 1.15, 0.25
"""Letters have bowls and legs: so many strokes per row on average, in so large a share of a line, in two at least."""
MAX_STEPS, MAX_GLYPHS = 800_000, 4_000
"""Bounds on work: in an image of noise only the sharpest edges, then only the largest marks are looked at."""


@dataclass(frozen=True, slots=True)
class Line:
    """Marks in a row that look like text."""

    n_glyphs: int
    height_px: float
    box: Box
    tone: float
    """Stored value of its strokes."""


@dataclass(frozen=True, slots=True)
class _Strokes:
    """Runs of pixels, in the order of rows and columns."""

    row: Index
    start: Index
    stop: Index


@dataclass(frozen=True, slots=True)
class _Glyphs:
    """Connected strokes: boxes in pixels, ends exclusive; `tone` is the extreme stored value."""

    top: Index
    bottom: Index
    left: Index
    right: Index
    tone: Reals
    strokes_per_row: Reals

    def where(self, chosen: npt.NDArray[np.bool_] | Index) -> "_Glyphs":
        return _Glyphs(*(getattr(self, field.name)[chosen] for field in fields(self)))


def text_lines(plane: Voxels, *, dark: bool = True) -> list[Line]:
    """Lines of at least four glyph-like marks, upright or turned by a quarter, in one image (y, x).

    Args:
        plane: Stored or rescaled values.
        dark: Whether marks darker than what is around them count too.
    """
    span = _span(plane)
    if span <= 0 or min(plane.shape) < 2 * MIN_HEIGHT_PX:
        return []
    rises, falls = _edges(plane, span)
    lines: list[Line] = []
    for is_wanted, opening, closing, sign in ((True, rises, falls, 1), (dark, falls, rises, -1)):
        strokes = _strokes(opening, closing, plane.shape[1] - 1, _largest_px(plane))
        if is_wanted and len(strokes.row) >= MIN_GLYPHS * MIN_HEIGHT_PX:
            glyphs = _glyphs(plane, strokes, sign)
            lines += [
                replace(line, box=box_of(line.box)) for seen, box_of in _turns(glyphs) for line in _lines(seen, span)
            ]
    return lines


def _span(plane: Voxels) -> float:
    """The range of stored values that most of the image uses."""
    low, high = np.percentile(plane[::5, ::5], (1, 99))
    return float(high - low) or float(plane.max()) - float(plane.min())


def _largest_px(plane: Voxels) -> int:
    return max(int(max(plane.shape) * MAX_SHARE), MAX_SMALL_PX)


def _edges(plane: Voxels, span: float) -> tuple[Index, Index]:
    """Rises and falls along x, each as (first, last) step, numbered through rows of width - 1 steps."""
    n_bits = 16 if float(plane.max()) - float(plane.min()) < 2**15 else 32
    kind = np.dtype(f"int{n_bits}") if plane.dtype.kind in "iub" else np.dtype(np.float32)
    steps = np.diff(plane.astype(kind), axis=1).ravel()
    least = span * min(MOST_EDGE, max(LEAST_EDGE, NOISE_EDGE * _spread(steps) / span))
    while True:
        rises, falls = np.flatnonzero(steps > STEP * least), np.flatnonzero(steps < -STEP * least)
        if len(rises) + len(falls) <= MAX_STEPS:
            break
        least *= 1.5
    n_steps = plane.shape[1] - 1
    return _grouped(rises, steps, n_steps, least), _grouped(falls, steps, n_steps, least)


def _spread(steps: Voxels) -> float:
    """Standard deviation of the steps that are noise, from their median size; flat surroundings do not count."""
    some = np.abs(steps[::37].astype(np.float64))
    busy = some[some > 0]
    return 1.4826 * float(np.median(busy if len(busy) > 0.3 * len(some) else some))


def _grouped(index: Index, steps: Voxels, n_steps: int, least: float) -> Index:
    """Steps next to one another are one edge; those that climb too little in all are left out."""
    if not len(index):
        return np.empty((2, 0), np.intp)
    breaks = np.flatnonzero((np.diff(index) != 1) | (index[1:] % n_steps == 0)) + 1
    first, last = np.r_[0, breaks], np.r_[breaks, len(index)] - 1
    is_edge = np.add.reduceat(np.abs(steps[index].astype(np.float64)), first) >= least
    return np.stack([index[first[is_edge]], index[last[is_edge]]])


def _strokes(opening: Index, closing: Index, n_steps: int, max_run: int) -> _Strokes:
    """Each opening edge with the next edge of its row, if that one closes."""
    following = np.searchsorted(closing[0], opening[0])
    is_closed = following < closing.shape[1]
    opened, closed = opening[:, is_closed], closing[:, following[is_closed]]
    next_opened = np.append(opened[0][1:], np.iinfo(np.intp).max)
    is_next = (closed[0] < next_opened) & (opened[0] // n_steps == closed[0] // n_steps)
    opened, closed = opened[:, is_next], closed[:, is_next]
    start = (opened[0] + opened[1]) // 2 % n_steps + 1
    stop = (closed[0] + closed[1] + 1) // 2 % n_steps + 1
    is_run = (stop > start) & (stop - start <= max_run)
    return _Strokes((opened[0] // n_steps)[is_run], start[is_run], stop[is_run])


def _glyphs(plane: Voxels, strokes: _Strokes, sign: int) -> _Glyphs:
    """Strokes that touch, corners included, are one glyph; what cannot be a letter is left out."""
    label = _touching(strokes, plane.shape[1] + 2)
    n = int(label.max()) + 1
    top, left = np.full(n, plane.shape[0]), np.full(n, plane.shape[1])
    bottom, right = np.zeros(n, np.intp), np.zeros(n, np.intp)
    np.minimum.at(top, label, strokes.row)
    np.maximum.at(bottom, label, strokes.row + 1)
    np.minimum.at(left, label, strokes.start)
    np.maximum.at(right, label, strokes.stop)
    tone = np.full(n, -np.inf)
    np.maximum.at(tone, label, _peaks(plane, strokes, sign))
    found = _Glyphs(top, bottom, left, right, sign * tone, np.bincount(label, minlength=n) / (bottom - top))
    high, wide = bottom - top, right - left
    large = np.maximum(high, wide)
    area = np.bincount(label, strokes.stop - strokes.start, n)
    is_letter = (large >= MIN_HEIGHT_PX) & (large <= _largest_px(plane)) & (area > MIN_FILL * high * wide)
    kept = np.flatnonzero(is_letter)
    return found.where(kept[np.argsort(-area[kept], kind="stable")[:MAX_GLYPHS]])


def _touching(strokes: _Strokes, stride: int) -> Index:
    """A number for each stroke, the same for all that hang together from row to row."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    start, stop = strokes.row * stride + strokes.start, strokes.row * stride + strokes.stop
    first = np.searchsorted(stop, start + stride)
    n_below = np.maximum(np.searchsorted(start, stop + stride, side="right") - first, 0)
    above, below = _pairs(first, n_below)
    links = coo_matrix((np.ones(len(above), bool), (above, below)), shape=(len(start),) * 2)
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.intp)


def _pairs(first: Index, count: Index) -> tuple[Index, Index]:
    """For each i the pairs (i, first[i]), (i, first[i] + 1), ... of which there are count[i]."""
    one = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
    return one, np.repeat(first, count) + offset


def _peaks(plane: Voxels, strokes: _Strokes, sign: int) -> Reals:
    """The brightest stored value of each stroke, or with sign -1 the darkest, negated."""
    width = plane.shape[1]
    ends = np.stack([strokes.row * width + strokes.start, strokes.row * width + strokes.stop], axis=1).ravel()
    ends[-1] = min(int(ends[-1]), plane.size - 1)
    pick = np.maximum if sign > 0 else np.minimum
    return np.asarray(sign * pick.reduceat(plane.ravel(), ends)[::2].astype(np.float64))


def _turns(glyphs: _Glyphs) -> Iterator[tuple[_Glyphs, Callable[[Box], Box]]]:
    """As one sees them who reads across, downwards and upwards (baseline at `bottom`), and the way back for a box."""
    yield glyphs, lambda box: box
    turned = replace(glyphs, top=glyphs.left, bottom=glyphs.right, left=glyphs.top, right=glyphs.bottom)
    yield turned, lambda box: (*box[2:], *box[:2])
    yield replace(turned, top=-turned.bottom, bottom=-turned.top), lambda box: (*box[2:], -box[1], -box[0])


def _lines(glyphs: _Glyphs, span: float) -> Iterator[Line]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    high = glyphs.bottom - glyphs.top
    fit = glyphs.where((high >= MIN_HEIGHT_PX) & (glyphs.right - glyphs.left <= MAX_WIDTH * high))
    fit = fit.where(np.argsort(fit.bottom, kind="stable"))
    n = len(fit.bottom)
    one, other = _neighbours(fit, span)
    label = connected_components(coo_matrix((np.ones(len(one), bool), (one, other)), shape=(n, n)), directed=False)[1]
    for chain in np.flatnonzero(np.bincount(label) >= MIN_GLYPHS) if n else ():
        line = _line(fit.where(label == chain))
        if line is not None:
            yield line


def _neighbours(glyphs: _Glyphs, span: float) -> tuple[Index, Index]:
    """Pairs of marks that may stand side by side in one line; marks come in the order of their baselines."""
    high = glyphs.bottom - glyphs.top
    reach = np.maximum(1, BASELINE / ALIKE * high)
    first = np.arange(len(high)) + 1
    one, other = _pairs(first, np.searchsorted(glyphs.bottom, glyphs.bottom + reach, side="right") - first)
    tall, low = np.maximum(high[one], high[other]), np.minimum(high[one], high[other])
    gap = np.maximum(glyphs.left[one], glyphs.left[other]) - np.minimum(glyphs.right[one], glyphs.right[other])
    are_near = (gap > -OVERLAP * tall) & (gap <= GAP * tall) & (low > ALIKE * tall)
    are_level = glyphs.bottom[other] - glyphs.bottom[one] <= np.maximum(1, BASELINE * tall)
    are_near &= are_level & (np.abs(glyphs.tone[one] - glyphs.tone[other]) <= TONE * span)
    return one[are_near], other[are_near]


def _line(chain: _Glyphs) -> Line | None:
    """The marks of a chain that lie on its baseline, if they are enough and look like letters."""
    high = chain.bottom - chain.top
    usual = float(np.median(high))
    off = np.abs(chain.bottom - np.median(chain.bottom))
    is_on = (off <= max(1.0, BASELINE * usual)) & (high > 0.55 * usual) & (high < 1.8 * usual)
    on = chain.where(is_on)
    n_branched = int((on.strokes_per_row > STROKES_PER_ROW).sum())
    if is_on.mean() < ON_LINE or is_on.sum() < MIN_GLYPHS or n_branched < max(2, BRANCHED * is_on.sum()):
        return None
    box = (int(on.top.min()), int(on.bottom.max()), int(on.left.min()), int(on.right.max()))
    return Line(int(is_on.sum()), usual, box, float(np.median(on.tone)))
