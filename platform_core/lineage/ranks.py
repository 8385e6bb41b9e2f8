"""Ranks of one scope without those of some series: the others keep theirs and close up."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core.shift.risk import Reals


def without(rows: pa.Table, keys: Collection[str]) -> pa.Table:
    """Rows of `core__rank`, of one site, stratum, recipe and reference, without some series.

    The ranks of others are not computed again: bets were settled on them, so they stay as they were, though these
    series were in the pool. Places close up, because the next place is the number of rows before it. A watch that
    had come past a place that is gone leaves out as many ranks to come, whatever they will be, and its promise
    holds. The number of the last batch stays with a row, because its transaction has landed.
    """
    is_left = pc.invert(pc.is_in(rows.column("series_key"), pa.array(sorted(keys), pa.string())))
    left = rows.filter(is_left).sort_by([("feature", "ascending"), ("sequence", "ascending")])
    if not left.num_rows:
        return left
    place = _places(left)
    batch, newest = np.array(left.column("batch").to_numpy()), pc.max(rows.column("batch")).as_py()
    if batch.max() < newest:
        batch[_last(place)] = newest
    left = _with(left, "sequence", pa.array(place, pa.int64(), from_pandas=True))
    return _with(left, "batch", pa.array(batch, pa.int64()))


def _places(left: pa.Table) -> Reals:
    """-n ... -1 for the n rows of each feature's reference, then 0, 1, ...; NaN for rows that set the grid.

    Rows come in order of feature and sequence, those without a place last.
    """
    before = np.asarray(left.column("sequence").cast(pa.float64()).to_numpy(), dtype=np.float64)
    codes = left.column("feature").combine_chunks().dictionary_encode().indices.to_numpy()
    place = np.full(len(before), np.nan)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(before)], strict=True):
        n_placed = int(np.isfinite(before[start:end]).sum())
        place[start : start + n_placed] = np.arange(n_placed) - int((before[start:end] < 0).sum())
    return place


def _last(place: Reals) -> int:
    """The row that came last; never a feature's row -1, which tells the unit by its batch."""
    return int(np.argmax(np.where(np.isnan(place) | (place == -1), -np.inf, place)))


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = rows.column_names.index(name)
    return rows.set_column(at, rows.schema.field(name), values)
