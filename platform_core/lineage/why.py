"""Why a thing is as it is: a tree of what it was made from, down to the hashes of scans and the version of the code.

Nothing is computed here: every line is a row, or a file, that was written when the thing was made.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.lineage.walk import Walk
from platform_core.manifest.workspace import Workspace

FEW = 3
HASH, N_HASH = re.compile(r"[0-9a-f]{40,}"), 16
"""Long hashes are cut in text; JSON has them whole."""
Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One thing and what it was made from."""

    kind: str
    """model, reference, series, file, recipe, decision, finding, episode, serving, ..."""
    name: str
    facts: Facts = field(default_factory=dict)
    """JSON-able."""
    children: tuple["Node", ...] = ()
    n_more: int = 0
    """Children that are there and not shown."""


def why(workspace: Workspace, thing: str, *, few: int | None = FEW) -> Node:
    """The tree of one thing.

    Args:
        workspace: Where it lies.
        thing: A model (`lesion@7`), a finding key, a decision key, what a site runs (`north`, or `north/lesion`), a
            recipe, or a series key.
        few: How many of each list are shown; None: all.

    Raises:
        UnknownName: If nothing has this name.
    """
    walk = Walk(workspace, few, Node)
    for find in (walk.model, walk.serving, walk.finding, walk.decision, walk.recipe, walk.series):
        found: Node | None = find(thing)
        if found is not None:
            return found
    raise UnknownName("thing", thing, known_names(workspace))


def known_names(workspace: Workspace) -> list[str]:
    """What may be asked about, the latest findings and decisions of each site among it."""
    names = [f"{row['model']}@{row['version']}" for row in workspace.lake.read(layout.MODEL).to_pylist()]
    for table, column in ((layout.FINDING, "finding_key"), (layout.DECISION, "decision_key")):
        names += workspace.lake.read(table, columns=[column]).column(column).to_pylist()[-FEW:]
    return [*workspace.sites, *dict.fromkeys(names)]


def told(node: Node, *, margin: str = "") -> Iterator[str]:
    """The tree as lines of text."""
    if not margin:
        yield _line(node)
    rows = len(node.children) + bool(node.n_more)
    for number, child in enumerate(node.children, start=1):
        is_last = number == rows
        yield f"{margin}{'`- ' if is_last else '|- '}{_line(child)}"
        yield from told(child, margin=f"{margin}{'   ' if is_last else '|  '}")
    if node.n_more:
        yield f"{margin}`- ... and {node.n_more} more; --all shows them"


def _line(node: Node) -> str:
    facts = "; ".join(
        f"{name} {_spelt(value)}" for name, value in node.facts.items() if value not in (None, "", [], {})
    )
    return f"{node.kind} {node.name}" + (f": {facts}" if facts else "")


def _spelt(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_spelt(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_spelt, value))
    return f"{value[:N_HASH]}.." if isinstance(value, str) and HASH.fullmatch(value) else str(value)
