"""The whole story on a digital phantom: three sites, two months, every verdict earned by measurement."""

import shutil
from hashlib import sha256
from pathlib import Path

from rich.console import Console

from flows.console import print_fleet
from flows.outcome import Outcome
from flows.start import start_run, start_training
from platform_core import clock
from platform_core.errors import BadRequest
from platform_core.manifest.door import create_key
from platform_core.manifest.labels import import_labels
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.phantom.cohort import Cohorts, default_cohorts
from platform_core.phantom.write import Month, write_month
from platform_core.report.fleet import write_fleet_report
from platform_core.report.fleet_rows import fleet_rows
from platform_core.settings import SiteSettings

TARGET = "lesion"
SOURCE = "north"
MARK = ".sitedrift-demo"
"""A file that says: this folder was made by the demo and may be made anew."""
FURTHER = """Look further:
  cd {workspace}
  sitedrift status
  sitedrift passport west
  sitedrift model list
  sitedrift model rollback lesion          takes the last promotion back, on every site
  sitedrift query "select site, kind, size, explained_by from out__finding order by period_start, site"
  sitedrift query "select site, action, status, because from out__decision order by decided_at"
"""
SETTINGS = Path(__file__).with_name("demo.toml")


def tell(folder: Path, *, seed: int, scale: float) -> Workspace:
    """Make a workspace under `folder`, live through two months, print what happened."""
    console = Console()
    workspace = prepare(folder, seed)
    cohorts = default_cohorts(scale)
    for month in (1, 2):
        _say(console, f"Month {month}: three hospitals send DICOM ...")
        sent = write_month(folder / "incoming", month=month, seed=seed, cohorts=cohorts)
        _say(console, ", ".join(f"{site} {n} scans" for site, n in sent.n_scans.items()))
        live_through(workspace, sent, cohorts)
        print_fleet(fleet_rows(workspace), console)
    _point_further(console, workspace)
    return workspace


def prepare(folder: Path, seed: int) -> Workspace:
    """An empty workspace with the demo's target and sites; an older demo in the same folder is removed.

    Its pseudonym key comes from the seed, as keys decide which patients train and which evaluate.

    Raises:
        BadRequest: If the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise BadRequest(f"{folder} is not empty and was not made by the demo; name another: sitedrift demo FOLDER")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    workspace = create_workspace(
        folder / "workspace", key_fingerprint=create_key("demo", secret=sha256(f"demo {seed}".encode()).digest())
    )
    settings = Path(workspace.uri) / "sitedrift.toml"
    settings.write_text(settings.read_text(encoding="utf-8") + SETTINGS.read_text(encoding="utf-8"), encoding="utf-8")
    for site in default_cohorts():
        place = folder.resolve() / "incoming" / site
        place.mkdir(parents=True)
        add_site(workspace, site, SiteSettings(quiet_s=0, path=str(place)))
    return open_workspace(workspace.uri)


def live_through(workspace: Workspace, sent: Month, cohorts: Cohorts) -> None:
    """One month: scans come in, readers label them, and the nightly run decides; the first time a model is trained."""
    sites = [SOURCE, *sorted(set(cohorts) - {SOURCE})]
    _must_be_whole(start_run(workspace, sites, until="quality"))
    for site, file in sent.label_files.items():
        at = clock.now()
        import_labels(workspace, site, TARGET, file, run=clock.new_run(at), at=at)
    if not fleet_has_a_model(workspace):
        start_training(workspace, TARGET)
    _must_be_whole(start_run(workspace, sites))


def _must_be_whole(ended: Outcome) -> None:
    for error in ended.stopped.values():
        raise error


def fleet_has_a_model(workspace: Workspace) -> bool:
    """Whether the target has a champion."""
    from platform_core.learn.registry import champion

    return champion(workspace, TARGET) is not None


def _say(console: Console, text: str) -> None:
    console.print(f"[bold]{text}[/]")


def _point_further(console: Console, workspace: Workspace) -> None:
    page = write_fleet_report(workspace, at=clock.now())
    console.print(f"\nThe same with plots: {workspace.uri}/{page}")
    console.print(FURTHER.format(workspace=workspace.uri), soft_wrap=True, highlight=False)
