"""What a night does for the targets of a site, without Prefect and without scans."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flows import run
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
        monkeypatch.setattr(run.site, name, lambda *_, found=found: found)
    monkeypatch.setattr(run.stages, "harmonize", lambda _uri, _name, recipe, keys, _run: asked.append((recipe, keys)))
    for name in ("predict", "sketch"):
        monkeypatch.setattr(run.stages, name, lambda *_: None)
    run.look("/nowhere", "south", "lesion", "r", AT)
    assert asked == [("new", ["old", "new"])]
