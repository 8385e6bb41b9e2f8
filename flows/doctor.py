"""What is wrong with an installation and a workspace, one line each with its remedy."""

from collections.abc import Callable, Iterator

from platform_core.errors import PlatformError


def examine(uri: str) -> list[str]:
    """Every problem found; an empty list means that a run can start."""
    return [problem for check in CHECKS for problem in _guarded(check, uri)]


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
    from platform_core.manifest.door import open_door
    from platform_core.manifest.workspace import open_workspace
    from platform_core.sources import SOURCES
    from platform_core.sources.contract import list_items

    workspace = open_workspace(uri)
    open_door(workspace)
    for settings in workspace.sites.values():
        try:
            next(list_items(SOURCES[settings.source], settings), None)
        except PlatformError as error:
            yield str(error)
    for name, target in workspace.settings.target.items():
        if target.source_site not in workspace.sites:
            yield f"target {name}: its source site {target.source_site!r} is not configured; sitedrift site add it"


CHECKS = (_fastapi, _workspace)
