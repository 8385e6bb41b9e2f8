"""What a night does for the targets of a site, without Prefect and without scans."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flows import run
from platform_core.errors import EmptySample, TargetsStopped
from platform_core.manifest.serving import Calibration, Serving

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
EVEN = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)
SERVING = Serving(site="south", target="lesion", model="lesion@1", recipe="new", calibration=EVEN)


def test_every_sound_scan_is_brought_to_the_recipe_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that another recipe of the target has seen; the plan leaves out what this one has."""
    asked: list[tuple[str, list[str]]] = []
    answers: dict[str, Any] = {
        "finish_rollouts": [], "renew_or_end": None, "ensure_serving": SERVING, "sound": ["old", "new"],
        "shadow_of": None, "keep_watch": [],
    }  # fmt: skip
    for name, found in answers.items():
        monkeypatch.setattr(f"flows.run.site.{name}", lambda *_, found=found: found)
    monkeypatch.setattr(
        "flows.run.stages.harmonize", lambda _uri, _name, recipe, keys, _run: asked.append((recipe, keys))
    )
    for name in ("predict", "sketch"):
        monkeypatch.setattr(f"flows.run.stages.{name}", lambda *_: None)
    run.look("/nowhere", "south", "lesion", "r", AT)
    assert asked == [("new", ["old", "new"])]


def test_a_target_that_is_stopped_keeps_no_other_target_of_its_site_from_an_answer() -> None:
    seen: list[str] = []

    def step(_uri: str, _name: str, target: str, *_: Any) -> None:
        seen.append(target)
        if target == "lesion":
            raise EmptySample("scans", 10, 3)

    with pytest.raises(TargetsStopped, match=r"lesion: .*scans") as stopped:
        run._follow_targets(step, ["lesion", "nodule"], "/nowhere", "south", "r", AT)
    assert seen == ["lesion", "nodule"]
    assert run._left(seen, stopped.value) == ["nodule"]


def test_a_site_that_could_not_be_read_is_not_answered_at_all() -> None:
    assert run._left(["lesion", "nodule"], EmptySample("scans", 10, 3)) == []
    assert run._left(["lesion", "nodule"], None) == ["lesion", "nodule"]
