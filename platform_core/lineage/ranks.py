"""Ranks of one scope without those of some series: the others keep theirs and close up."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


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
    place, batch = _places(left), left.column("batch").to_pylist()
    newest = pc.max(rows.column("batch")).as_py()
    if max(batch) < newest:
        batch[_last(place)] = newest
    left = _with(left, "sequence", pa.array(place, pa.int64()))
    return _with(left, "batch", pa.array(batch, pa.int64()))


def _places(left: pa.Table) -> list[int | None]:
    """-n ... -1 for the n rows of each feature's reference, then 0, 1, ...; None for rows that set the grid."""
    before = left.column("sequence").to_pylist()
    places: list[int | None] = [None] * len(before)
    features = np.asarray(left.column("feature").to_pylist())
    for feature in np.unique(features):
        mine = [i for i in np.flatnonzero(features == feature) if before[i] is not None]
        n_reference = sum(before[i] < 0 for i in mine)
        for number, i in enumerate(mine):
            places[i] = number - n_reference
    return places


def _last(place: list[int | None]) -> int:
    """The row that came last; never a feature's row -1, which tells the unit by its batch."""
    return int(np.argmax([-np.inf if number in (None, -1) else float(number or 0) for number in place]))


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = rows.column_names.index(name)
    return rows.set_column(at, rows.schema.field(name), values)
