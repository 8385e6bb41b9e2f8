"""What is wrong with an installation and a workspace, one line each with its remedy."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from platform_core.errors import PlatformError
from platform_core.report.spelling import plural

N_PROBES = 32
MAX_SKEW_S = 60
"""S3 refuses requests whose clock is a quarter of an hour off; ages of files are wrong long before."""
LEFT_AFTER = timedelta(days=1)
"""No run holds a volume without its row for so long."""


def examine(uri: str) -> list[str]:
    """Every problem found; an empty list means that a run can start."""
    return list(dict.fromkeys(problem for check in CHECKS for problem in _guarded(check, uri)))


def tidy(uri: str) -> str:
    """Remove what broken runs left behind; says what it was."""
    from platform_core import clock
    from platform_core.manifest.orphans import sweep
    from platform_core.manifest.workspace import open_workspace

    swept = sweep(open_workspace(uri), before=clock.now() - LEFT_AFTER)
    volumes = plural(swept.n_volumes, "volume", "volumes")
    files = plural(swept.n_unfinished, "unfinished file", "unfinished files")
    return f"Removed {volumes} ({swept.n_bytes / 1e6:.1f} MB) that no table names and {files}."


def _guarded(check: Callable[[str], Iterator[str]], uri: str) -> Iterator[str]:
    try:
        yield from check(uri)
    except PlatformError as error:
        yield str(error)


def _fastapi(_: str) -> Iterator[str]:
    from importlib.metadata import version

    major, minor = (int(part) for part in version("fastapi").split(".")[:2])
    if (major, minor) >= (0, 151):
        yield f"fastapi {version('fastapi')}: Prefect 3.8 cannot start with it; pip install 'fastapi<0.151'"


def _workspace(uri: str) -> Iterator[str]:
    from platform_core.harmonize.recipe import check_recipes
    from platform_core.manifest.door import open_door
    from platform_core.manifest.workspace import open_workspace
    from platform_core.sources import SOURCES
    from platform_core.sources.contract import list_items

    workspace = open_workspace(uri)
    open_door(workspace)
    try:
        check_recipes(workspace.settings)
    except PlatformError as error:
        yield str(error)
    for settings in workspace.sites.values():
        try:
            next(list_items(SOURCES[settings.source], settings), None)
        except PlatformError as error:
            yield str(error)
    for name, target in workspace.settings.target.items():
        if target.source_site not in workspace.sites:
            yield f"target {name}: its source site {target.source_site!r} is not configured; sitedrift site add it"


def _policy(uri: str) -> Iterator[str]:
    from platform_core.learn.strategies import STRATEGIES
    from platform_core.manifest.workspace import open_workspace
    from platform_core.policy.table import policy_of

    workspace = open_workspace(uri)
    for name, target in workspace.settings.target.items():
        unknown = [strategy for strategy in target.strategies if strategy not in STRATEGIES]
        if unknown:
            known = ", ".join(STRATEGIES)
            yield f"target {name}: no strategy named {', '.join(unknown)}; there are {known}: mend `strategies`"
    policy_of(workspace)


def _store(uri: str) -> Iterator[str]:
    from platform_core import clock, layout
    from platform_core.storage.objects import open_objects
    from platform_core.storage.probe import require_atomic
    from platform_core.storage.s3 import S3Objects

    here = layout.workspace_uri(uri)
    if not layout.is_remote(here):
        return
    objects = open_objects(here)
    require_atomic(objects, here, n_keys=N_PROBES)
    assert isinstance(objects, S3Objects)
    skew_s = (clock.now() - objects.clock()).total_seconds()
    if abs(skew_s) > MAX_SKEW_S:
        yield f"{here}: this machine's clock is {skew_s:+.0f} s off the store's; set it, for example with NTP"


def _leftovers(uri: str) -> Iterator[str]:
    from platform_core import clock
    from platform_core.manifest.orphans import orphans
    from platform_core.manifest.workspace import open_workspace

    left = orphans(open_workspace(uri), before=clock.now() - LEFT_AFTER)
    if left:
        n_mb = sum(found.n_bytes for found in left) / 1e6
        told = plural(len(left), "volume of a broken run is", "volumes of broken runs are")
        yield f"{told} named by no table ({n_mb:.1f} MB); sitedrift doctor --fix removes what is older than a day"


def _withdrawals(uri: str) -> Iterator[str]:
    from platform_core.lineage.journal import held_plans
    from platform_core.manifest.workspace import open_workspace

    for plan in held_plans(open_workspace(uri)):
        yield f"a withdrawal, begun at {plan.began_at}, has not ended; sitedrift withdraw {plan.site} goes on with it"


CHECKS = (_fastapi, _store, _workspace, _policy, _leftovers, _withdrawals)
