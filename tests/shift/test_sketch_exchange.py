import io
import json
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core import layout
from platform_core.errors import BadRequest, BadSketchFile, UnknownName
from platform_core.manifest.door import create_key
from platform_core.manifest.workspace import Workspace, add_site, create_workspace
from platform_core.settings import SiteSettings
from platform_core.shift.sketch.cells import cells_of, count_days, merge_cells
from platform_core.shift.sketch.exchange import (
    FACTS,
    _pack,
    export_reference,
    export_sketches,
    import_reference,
    import_sketches,
)
from platform_core.shift.sketch.patient_days import Basis, feature_days, score_days
from platform_core.shift.sketch.references import freeze_reference, read_reference
from platform_core.shift.sketch.sketches import restate_days, sum_sketches
from tests.shift.planted import MODEL, MONDAY, RECIPE, Month, fill, prepare

BASIS = Basis(reference=MODEL, recipe=RECIPE, target="lesion", model=MODEL)
K = 12
SENT = "site stratum day last_day recipe reference feature kind n sum sum_squares sketch"


@pytest.fixture
def centre(workspace: Workspace) -> Workspace:
    """Where the reference is, and where the site is known by name only."""
    ready = prepare(workspace, "a")
    fill(ready, Month(n=300))
    freeze_reference(ready, "a", basis=BASIS, run="r")
    add_site(ready, "b", SiteSettings(path="elsewhere"))
    return Workspace(ready.uri)


@pytest.fixture
def behind_the_wall(centre: Workspace, tmp_path: Path) -> Workspace:
    """The site's own workspace, with the reference's edges."""
    ready = prepare(create_workspace(tmp_path / "site", key_fingerprint=create_key("site")), "b")
    fill(ready, Month(site="b", n=200, noise_hu=11.0), Month(site="b", number=1, n=100))
    assert import_reference(ready, export_reference(centre, BASIS), run="r") > 0
    return ready


def table_of(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def changed(data: bytes, edit: Any) -> bytes:
    """The file with its table edited and its stated facts kept."""
    table = table_of(data)
    out = io.BytesIO()
    pq.write_table(edit(table).replace_schema_metadata(table.schema.metadata), out)
    return out.getvalue()


def test_no_cell_holds_fewer_patients_than_asked_for(behind_the_wall: Workspace) -> None:
    rows = table_of(export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=K)).to_pylist()
    features, scores = feature_days(behind_the_wall, "b", RECIPE), score_days(behind_the_wall, "b", BASIS)
    patients = defaultdict(set)
    for counted in (features, scores):
        for row in counted.rows.to_pylist():
            for name, value in row.items():
                if value is not None:
                    patients[name, row["day"]].add(row["patient_key"])
    assert {row["feature"] for row in rows} >= {"noise_immerkaer_hu", "q50_hu", "score", "label", "embedding"}
    for row in rows:
        name = {"features": "q50_hu"}.get(
            row["feature"].removesuffix("_fourier"), row["feature"].removesuffix("_fourier")
        )
        days = [row["day"] + timedelta(days=i) for i in range((row["last_day"] - row["day"]).days + 1)]
        n_patients = len(set().union(*(patients[name, day] for day in days)))
        assert n_patients >= K, row["feature"]
        assert row["n"] >= n_patients


def test_sums_of_vectors_are_fewer_than_half_the_numbers_summed(behind_the_wall: Workspace) -> None:
    rows = table_of(export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=2)).to_pylist()
    sizes = {row["feature"]: len(row["sketch"]) for row in rows}
    cells = [row for row in rows if row["feature"] == "embedding"]
    assert cells
    assert all(4 * row["n"] >= 2 * (sizes["embedding"] + sizes["embedding_fourier"]) for row in cells)


def test_merging_days_keeps_the_totals_exactly(behind_the_wall: Workspace) -> None:
    rows = table_of(export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=K))
    frozen = read_reference(behind_the_wall, BASIS)
    by_day = count_days(feature_days(behind_the_wall, "b", RECIPE), frozen)
    last: dict[str, Any] = defaultdict(lambda: MONDAY - timedelta(days=1))
    for (stratum, first_day, last_day, feature), cell in sorted(cells_of(rows).items(), key=lambda item: item[0][1]):
        assert first_day > last[feature], "no day is in two cells"
        last[feature] = last_day
        own = [
            day_cell
            for (s, day, _, f), day_cell in sorted(by_day.items())
            if (s, f) == (stratum, feature) and first_day <= day <= last_day
        ]
        if own:
            assert cell.n == sum(each.n for each in own)
            np.testing.assert_array_equal(cell.sums, merge_cells(own).sums)
    left = sum(cell.n for key, cell in by_day.items() if key[3] == "q50_hu" and key[1] > last["q50_hu"])
    assert left < K


def test_a_file_holds_the_promised_columns_and_no_patient(behind_the_wall: Workspace) -> None:
    data = export_sketches(behind_the_wall, "b", basis=BASIS)
    assert table_of(data).column_names == SENT.split()
    assert b"patient-" not in data
    assert set(table_of(data).schema.metadata) == {b"sitedrift"}


def test_what_was_exported_arrives_and_a_second_time_adds_nothing(
    centre: Workspace, behind_the_wall: Workspace
) -> None:
    data = export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=K)
    assert import_sketches(centre, data, run="one") == len(table_of(data))
    assert import_sketches(centre, data, run="two") == 0
    sent, here = cells_of(table_of(data)), cells_of(centre.lake.read(layout.SKETCH))
    assert sent.keys() == here.keys()
    assert all(np.array_equal(sent[key].sums, here[key].sums) for key in sent)


def test_a_later_export_adds_its_new_cells_and_leaves_the_old(centre: Workspace, behind_the_wall: Workspace) -> None:
    first = export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=K)
    import_sketches(centre, first, run="one")
    fill(behind_the_wall, Month(site="b", number=2, n=150))
    second = export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=K)
    old, new = cells_of(table_of(first)), cells_of(table_of(second))
    assert old.keys() < new.keys()
    assert all(np.array_equal(old[key].sums, new[key].sums) for key in old)
    assert import_sketches(centre, second, run="two") == len(new) - len(old)
    found = {row["feature"]: row["n"] for row in sum_sketches(centre, BASIS, sites=["b"]).to_pylist()}
    assert found["q50_hu"] == sum(cell.n for key, cell in new.items() if key[3] == "q50_hu")


def test_too_few_patients_leave_nothing(behind_the_wall: Workspace) -> None:
    assert len(table_of(export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=5000))) == 0


@pytest.mark.parametrize("k", [-1, 0, 1])
def test_a_sum_over_one_scan_is_not_exported(behind_the_wall: Workspace, k: int) -> None:
    with pytest.raises(BadRequest, match="2 or more"):
        export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=k)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda table: table.slice(1), "changed"),
        (lambda table: table.set_column(8, "n", pa.array([99] * len(table))), "changed"),
        (lambda table: table.append_column("patient_key", pa.array(["x"] * len(table))), "columns"),
        (lambda table: table.drop_columns(["sum"]), "columns"),
        (lambda table: table.set_column(8, "n", pa.array(["many"] * len(table))), "columns"),
    ],
)
def test_a_file_that_was_changed_is_refused(
    centre: Workspace, behind_the_wall: Workspace, edit: Any, reason: str
) -> None:
    data = changed(export_sketches(behind_the_wall, "b", basis=BASIS), edit)
    with pytest.raises(BadSketchFile) as refusal:
        import_sketches(centre, data, run="r")
    assert refusal.value.reason == reason
    assert len(centre.lake.read(layout.SKETCH)) == 0


def resealed(data: bytes, edit: Any) -> bytes:
    """A file that somebody made with care: its digest is right."""
    facts = json.loads(table_of(data).schema.metadata[FACTS])
    kept = {name: facts[name] for name in facts if name not in ("format", "digest")}
    return _pack(edit(table_of(data)), kept)


def first_n(table: pa.Table, feature: str, column: str, value: Any) -> pa.Table:
    rows = table.to_pylist()
    next(row for row in rows if row["feature"] == feature)[column] = value
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize(
    ("feature", "column", "value"),
    [
        ("q50_hu", "n", 1),
        ("q50_hu", "sketch", [1.0]),
        ("label", "sketch", [-3.0, 15.0, 0.0]),
        ("embedding", "sketch", [float("nan")] * 14),
        ("q50_hu", "feature", "invented"),
        ("q50_hu", "site", "elsewhere"),
        ("q50_hu", "sum", None),
        ("q50_hu", "day", None),
        ("q50_hu", "kind", None),
        ("q50_hu", "last_day", MONDAY + timedelta(days=20)),
        ("q50_hu", "last_day", MONDAY - timedelta(days=1)),
    ],
)
def test_a_cell_that_cannot_be_what_it_says_is_refused(
    centre: Workspace, behind_the_wall: Workspace, feature: str, column: str, value: Any
) -> None:
    data = export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=K)
    with pytest.raises(BadSketchFile) as refusal:
        import_sketches(centre, resealed(data, lambda table: first_n(table, feature, column, value)), run="r")
    assert refusal.value.reason == "cells"
    assert len(centre.lake.read(layout.SKETCH)) == 0


def test_a_foreign_file_is_refused(centre: Workspace, behind_the_wall: Workspace) -> None:
    whole = export_sketches(behind_the_wall, "b", basis=BASIS)
    plain = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), plain)
    cases = {b"": "unreadable", b"PAR1 no": "unreadable", whole[:-40]: "unreadable", plain.getvalue(): "foreign"}
    cases[export_reference(centre, BASIS)] = "foreign"
    for data, reason in cases.items():
        with pytest.raises(BadSketchFile) as refusal:
            import_sketches(centre, data, run="r")
        assert refusal.value.reason == reason


def test_a_flipped_byte_never_arrives_as_something_else(centre: Workspace, behind_the_wall: Workspace) -> None:
    data = bytearray(export_sketches(behind_the_wall, "b", basis=BASIS, at_least_patients=40))
    for place in np.random.default_rng(0).choice(len(data), 25, replace=False):
        spoilt = bytearray(data)
        spoilt[place] ^= 0x55
        try:
            import_sketches(centre, bytes(spoilt), run="r")
        except BadSketchFile:
            continue
        assert table_of(bytes(spoilt)).equals(table_of(bytes(data))), "only bytes that mean nothing may differ"


def test_sketches_on_other_edges_are_refused(centre: Workspace, tmp_path: Path) -> None:
    other = prepare(create_workspace(tmp_path / "other", key_fingerprint=create_key("other")), "a", "b")
    fill(other, Month(n=300, noise_hu=50.0), Month(site="b", n=200))
    freeze_reference(other, "a", basis=BASIS, run="r")
    with pytest.raises(BadSketchFile, match="other_reference"):
        import_sketches(centre, export_sketches(other, "b", basis=BASIS), run="r")
    with pytest.raises(BadSketchFile, match="other_reference"):
        import_reference(centre, export_reference(other, BASIS), run="r")


def test_a_site_that_is_unknown_or_makes_its_sketches_here_is_refused(centre: Workspace, tmp_path: Path) -> None:
    other = prepare(create_workspace(tmp_path / "other", key_fingerprint=create_key("other")), "a", "z")
    import_reference(other, export_reference(centre, BASIS), run="r")
    fill(other, Month(site="z", n=200), Month(n=200))
    with pytest.raises(UnknownName):
        import_sketches(centre, export_sketches(other, "z", basis=BASIS), run="r")
    add_site(centre, "a", SiteSettings(path="here"))
    with pytest.raises(BadRequest, match="twice"):
        import_sketches(Workspace(centre.uri), export_sketches(other, "a", basis=BASIS), run="r")


def test_a_site_makes_the_sketches_that_the_centre_would_have_made(
    centre: Workspace, behind_the_wall: Workspace
) -> None:
    days = [MONDAY + timedelta(days=i) for i in range(56)]
    fill(centre, Month(site="b", n=200, noise_hu=11.0), Month(site="b", number=1, n=100))
    for workspace in (centre, behind_the_wall):
        restate_days(workspace, "b", days, basis=BASIS, run="r")
    one, two = (sum_sketches(workspace, BASIS, sites=["b"]) for workspace in (centre, behind_the_wall))
    assert one.equals(two)
