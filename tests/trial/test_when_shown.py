"""On most nights nothing is shown: what a night asks before it shows the reference through a site's scanner."""

from datetime import timedelta
from typing import Any

import pytest

from platform_core.manifest.workspace import Workspace
from platform_core.shift.inputs import read_inputs
from platform_core.shift.stage import measure_shift
from platform_core.trial import transported
from platform_core.trial.transported import _Bench, show_reference
from tests.shift import planted
from tests.shift.planted import AT, Month, fill, prepare

BEFORE = Month(site="b", n=70)


class Looked(Exception):
    """All that a verdict needs was worked out."""


@pytest.fixture
def ready(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A source, and a site in its first period; whoever works evidence out is caught."""

    def caught(*_: Any) -> None:
        raise Looked

    made = prepare(workspace, "a", "b")
    fill(made, Month(site="a", n=400), BEFORE)
    monkeypatch.setattr(transported, "evidence_of", caught)
    return made


def bench_of(workspace: Workspace) -> _Bench:
    (inputs,) = read_inputs(workspace, "b", "lesion")
    assert inputs.serving is not None
    assert inputs.reference is not None
    return _Bench(inputs=inputs, serving=inputs.serving, reference=inputs.reference)


def test_a_night_whose_acquisition_is_as_before_costs_no_diagnosis(ready: Workspace) -> None:
    fill(ready, Month(site="b", number=1, n=70, median_hu=60))
    assert bench_of(ready).can_be_shown
    assert show_reference(ready, "b", "lesion", run="r") == []


def test_features_of_acquisition_that_moved_are_looked_at(ready: Workspace) -> None:
    fill(ready, Month(site="b", number=1, n=70, noise_hu=15))
    with pytest.raises(Looked):
        show_reference(ready, "b", "lesion", run="r")


def test_a_stratum_whose_last_finding_was_of_acquisition_is_looked_at(ready: Workspace) -> None:
    """Also where its features by themselves no longer tell."""
    fill(ready, Month(site="b", number=1, n=70, noise_hu=15))
    (found,) = measure_shift(ready, "b", target="lesion", run="r1", at=AT)
    assert found.kind == "covariate_acquisition"
    fill(ready, Month(site="b", number=2, n=70))
    with pytest.raises(Looked):
        show_reference(ready, "b", "lesion", run="r2")


def test_older_scans_that_come_late_make_no_other_transport(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is learned from the first 60 patients, until there are 120."""
    ready = prepare(workspace, "a", "b")
    fill(ready, Month(site="a", n=400), Month(site="b", n=70, first_day=1, days=25))
    name = bench_of(ready).transport
    monkeypatch.setattr(planted, "AT", AT + timedelta(days=1))
    fill(ready, Month(site="b", n=20, first_day=2, days=3))
    assert bench_of(ready).inputs.current.n == 90
    assert bench_of(ready).transport == name
