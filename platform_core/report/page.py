"""From facts to one HTML file that needs nothing else: style, plots and the plotting library are inside it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from platform_core.manifest.workspace import Workspace
from platform_core.report import curves, spelling
from platform_core.shift.risk import Estimate

HERE = Path(__file__).parent
TRACK_PX = 150


def write_page(workspace: Workspace, path: str, template: str, **facts: Any) -> str:
    """Render a template beside this file to `path` of the workspace; returns the path."""
    html = render(template, **facts)
    workspace.objects.put(path, html.encode())
    return path


def render(template: str, **facts: Any) -> str:
    """One self-contained page; of a template `.md.j2` plain text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    spoken = ("number", "interval", "compact", "p_value", "count", "duration", "day", "days", "sentence")
    environment.filters |= {name: getattr(spelling, name) for name in spoken}
    environment.globals |= {
        "KIND_WORDS": spelling.KIND_WORDS,
        "ACTION_WORDS": spelling.ACTION_WORDS,
        "STATE_MARKS": spelling.STATE_MARKS,
        "size_name": spelling.size_name,
        "plural": spelling.plural,
        "track": track,
        "curves": curves,
    }
    facts = {"figures": {}, **facts, "style": (HERE / "page.css").read_text(encoding="utf-8")}
    facts["plotly"] = get_plotlyjs() if facts["figures"] else ""
    return environment.get_template(template).render(**facts)


def widest(estimates: Iterable[Estimate | None]) -> float:
    """The upper end of a common scale for several estimates, at least a little above zero."""
    return max([estimate.high for estimate in estimates if estimate is not None], default=1.0) or 1.0


def track(before: Estimate | None, after: Estimate | None, high: float) -> list[dict[str, Any]]:
    """Where the marks of a small interval plot lie, in pixels of a track that spans [0, high]."""

    def at(value: float) -> float:
        return round(6 + (TRACK_PX - 12) * min(max(value / high, 0.0), 1.0), 1)

    marks = [("before", before), ("after", after)]
    return [
        {"role": role, "x": at(estimate.value), "low": at(estimate.low), "high": at(estimate.high)}
        for role, estimate in marks
        if estimate is not None
    ]
