"""A site's first recipe: served if no step of it does harm, else a person is asked, with the numbers."""

from dataclasses import replace
from pathlib import Path

import pytest

from platform_core import layout
from platform_core.errors import HarmfulRecipe
from platform_core.manifest.serving import current_serving
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from platform_core.trial import onboard
from tests.trial.test_trial_rows import AT, TRIAL, receipt


@pytest.fixture
def new_site(served: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A site without a serving, and enough scans to fit a recipe on."""
    add_site(served, "new", SiteSettings(quiet_s=0, path="/nowhere"))
    monkeypatch.setattr(onboard, "sound_series", lambda *_: ["a"] * onboard.FEWEST_SERIES)
    monkeypatch.setattr(onboard, "keep_trial", lambda *_, **__: None)
    return open_workspace(served.uri)


def first(workspace: Workspace) -> str | None:
    serving = onboard.ensure_serving(workspace, "new", "lesion", run="r", at=AT)
    return None if serving is None else serving.recipe


def test_a_harmless_recipe_is_served(new_site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboard, "fit_tried_recipe", lambda *_, **__: [TRIAL])
    assert first(new_site) == TRIAL.recipe


HARMFUL = replace(TRIAL, site="new", receipts=(receipt(1, "clip_intensity", change=0.3), TRIAL.receipts[1]))


def test_a_harmful_one_is_not_and_says_why(new_site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboard, "fit_tried_recipe", lambda *_, **__: [HARMFUL])
    with pytest.raises(HarmfulRecipe, match=r"clip_intensity.*rises by 0.30.*refuse_harmful_steps = false"):
        first(new_site)
    assert current_serving(new_site, "new", "lesion") is None


def test_unless_the_target_says_that_harm_is_only_told(new_site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboard, "fit_tried_recipe", lambda *_, **__: [HARMFUL])
    file = Path(new_site.uri) / layout.SETTINGS
    text = file.read_text(encoding="utf-8").replace(
        "\n[target.lesion]", "\n[target.lesion]\nrefuse_harmful_steps = false"
    )
    file.write_text(text, encoding="utf-8")
    assert first(open_workspace(new_site.uri)) == HARMFUL.recipe
