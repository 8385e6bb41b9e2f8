"""A fleet by its sketches: frozen on what the champion was trained on, one site behind its wall."""

from pathlib import Path

import pytest

from platform_core import layout
from platform_core.errors import BadRequest, BadSketchFile
from platform_core.manifest.door import create_key
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.settings import SiteSettings
from platform_core.shift.sketch.exchange import export_reference, export_sketches, import_file
from platform_core.shift.sketch.sketches import sketch_shard
from platform_core.trial.sketching import champion_basis, compare_fleet, known_basis
from tests.trial.conftest import write_reference
from tests.trial.test_combat_trial import plant, sound


@pytest.fixture
def fleet(served: Workspace) -> Workspace:
    """North is what the champion was trained on; south is like it, east is not."""
    for site, move in (("north", 0.0), ("south", 0.1), ("east", 3.0)):
        plant(served, site, 80, move=move)
        keys = sound(served)[site]
        record_stage(served, site, "feature", [Verdict(series_key=key, revision=1) for key in keys], run="r")
    write_reference(served, 1, [("north", key) for key in sound(served)["north"]])
    return served


def sketch_all(workspace: Workspace) -> None:
    basis = champion_basis(workspace, "lesion", run="r")
    assert basis is not None
    for site, keys in sound(workspace).items():
        sketch_shard(workspace, site, keys, basis=basis, run="r")


def test_the_site_that_differs_lies_furthest(fleet: Workspace) -> None:
    sketch_all(fleet)
    rows = compare_fleet(fleet, known_basis(fleet, None), statistic="ks")
    assert {rows[0]["first"], rows[0]["second"]} & {"east"}
    distance = {(row["first"], row["second"]): float(str(row["ks"])) for row in rows}
    assert distance["lesion@1", "south"] < 0.1
    assert distance["east", "lesion@1"] > 0.7
    (one,) = (row for row in compare_fleet(fleet, known_basis(fleet, None), statistic="ks", feature="q50_hu")
              if (row["first"], row["second"]) == ("east", "north"))  # fmt: skip
    assert one["features"] == 1


def test_a_site_behind_its_wall_is_compared_without_its_scans(fleet: Workspace, tmp_path: Path, home: Path) -> None:
    sketch_all(fleet)
    basis = known_basis(fleet, None)
    data = export_sketches(fleet, "east", basis=basis)
    centre = tmp_path / "centre"
    there = create_workspace(centre, key_fingerprint=create_key("centre"))
    add_site(there, "east", SiteSettings(path="/nowhere"))
    there = open_workspace(there.uri)
    assert import_file(there, export_reference(fleet, basis), run="r")[0] == "reference"
    assert import_file(there, data, run="r")[0] == "sketches"
    (row,) = compare_fleet(there, known_basis(there, None), statistic="ks")
    assert (row["first"], row["second"]) == ("east", "lesion@1")
    assert float(str(row["ks"])) > 0.7
    assert there.lake.read(layout.FEATURE).num_rows == 0


def test_what_is_no_sketch_is_refused(fleet: Workspace) -> None:
    with pytest.raises(BadSketchFile):
        import_file(fleet, b"not a file of ours", run="r")


def test_a_reference_must_be_known(fleet: Workspace) -> None:
    with pytest.raises(BadRequest, match="known here: none"):
        known_basis(fleet, None)
    sketch_all(fleet)
    with pytest.raises(BadRequest, match="known here: lesion@1"):
        known_basis(fleet, "lesion@9")
