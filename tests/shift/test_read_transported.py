"""A finding reads the reference as it was shown last."""

import pytest

from platform_core import layout
from platform_core.manifest.schemas import TRANSPORTED
from platform_core.manifest.workspace import Workspace
from platform_core.shift.transported import read_transported
from platform_core.storage.tables import rows_of
from tests.shift.planted import MONDAY

ABOUT = {"site": "b", "stratum": "ct", "target": "lesion", "model": "lesion@1", "recipe": "recipe-1"}
EARLIER, LATER = "20260201T060000-ffff", "20260202T060000-0000"


def show(workspace: Workspace, transport: str, run: str, n_site: int = 100) -> None:
    row = ABOUT | {"period_start": MONDAY, "transport": transport, "n_site": n_site, "worst": 0.1, "run": run}
    row |= {"series_key": "s", "revision": 1, "y": 1.0, "score": 0.5}
    workspace.lake.append(layout.TRANSPORTED, rows_of(TRANSPORTED, [row]), transaction=f"{transport}/{run}")


@pytest.mark.parametrize("n_later", [60, 100])
@pytest.mark.parametrize(("stale", "fresh"), [("0a", "f1"), ("f1", "0a")])
def test_the_transport_of_the_latest_run_is_read(workspace: Workspace, stale: str, fresh: str, n_later: int) -> None:
    """Its name is a hash, and says nothing of time; it has fewer patients where some were withdrawn."""
    show(workspace, stale, EARLIER)
    show(workspace, fresh, LATER, n_later)
    found = read_transported(workspace, **ABOUT, period_start=MONDAY)
    assert found is not None
    assert found.transport == fresh
