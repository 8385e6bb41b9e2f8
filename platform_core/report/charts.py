"""Plots as Plotly figures in JSON. Colours of text and grid come from the page, so that dark and print follow it.

Data colours are those of Okabe & Ito, "Color Universal Design" (2008), which colour-blind readers can tell
apart; no meaning rests on colour alone, each row is labelled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_core.report.samples import Role, Row, thin
from platform_core.shift.risk import Estimate, Reals

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS: Mapping[Role, str] = {
    "reference": "#8c939c",
    "accepted": "#0072b2",
    "earlier": "#56b4e9",
    "latest": "#d55e00",
}
MARKS = (
    ("triangle-up", "#d55e00"),
    ("x", "#8c939c"),
    ("circle", "#0072b2"),
    ("square", "#009e73"),
    ("diamond", "#cc79a7"),
    ("cross", "#e69f00"),
    ("star", "#56b4e9"),
)
"""Symbol and colour of what happened, told apart by either."""
ROW_PX = 46
EDGES_PX = 58
"""Axis and its title."""


def ridges(native: Sequence[Row], harmonized: Sequence[Row], *, unit: str) -> str:
    """One feature, one row per sample: as scanned on the left, harmonized on the right, one scale for both."""
    from plotly.subplots import make_subplots

    sides = [side for side in (native, harmonized) if any(sample.n for sample in side)]
    names = ["as scanned", "harmonized"][: len(sides)]
    figure = make_subplots(cols=max(len(sides), 1), shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=names)
    for column, side in enumerate(sides, start=1):
        for sample in reversed(side):
            _add_ridge(figure, sample, column)
        figure.update_xaxes(title_text=unit, range=_span(sides), row=1, col=column)
    return _finish(figure, n_rows=len(native))


def scores(samples: Sequence[Row], prevalences: Mapping[str, Estimate], *, assumed: float | None) -> str:
    """Scores on the left; on the right, in the same rows, the prevalence that they imply, with its 95 % interval."""
    from plotly.subplots import make_subplots

    titles = ["scores", "prevalence from scores"]
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=titles)
    for sample in reversed(samples):
        _add_ridge(figure, sample, 1)
        if sample.label in prevalences:
            _add_interval(figure, sample, prevalences[sample.label], 2)
    if assumed is not None:
        figure.add_vline(x=assumed, line_dash="dot", line_color=COLOURS["reference"], row=1, col=2)
    figure.update_xaxes(title_text="score (logit)", range=_span([samples]), row=1, col=1)
    figure.update_xaxes(title_text="share of positives", range=[0, 1], row=1, col=2)
    return _finish(figure, n_rows=len(samples))


def ladder(rows: Sequence[tuple[str, Sequence[float | None]]], *, states: Sequence[str]) -> str:
    """One row per feature; a mark for its distance at every state, from hollow grey to filled, a line joins them."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [name for name, _ in reversed(rows)]
    for name, values in rows:
        known = [value for value in values if value is not None]
        joined = go.Scatter(x=[min(known), max(known)], y=[name, name], mode="lines", hoverinfo="skip",
                            line={"color": "rgba(140,147,156,0.5)", "width": 2}, showlegend=False)  # fmt: skip
        figure.add_trace(joined)
    for number, state in enumerate(states):
        marks = go.Scatter(
            x=[values[number] for _, values in reversed(rows)],
            y=names,
            mode="markers",
            name=state,
            marker=_mark(number, len(states)),
            hovertemplate=f"%{{y}}: %{{x:.2f}}<extra>{state}</extra>",
        )
        figure.add_trace(marks)
    figure.update_xaxes(title_text="KS distance to the reference", range=[-0.03, 1.03])
    figure.update_yaxes(categoryorder="array", categoryarray=names)
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
    return _finish(figure, n_rows=len(rows), row_px=22, top_px=44, legend=legend)


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened."""

    day: int
    name: str
    because: str


def timeline(marks: Mapping[str, Sequence[Mark]], *, names: Sequence[str], last_day: int) -> str:
    """What happened when, a row per site; what happened to one site on one day lies one above the other.

    Args:
        marks: Per site, from the top.
        names: Of all marks of all plots that are read beside this one: each has its symbol and colour.
        last_day: To the right.
    """
    import plotly.graph_objects as go

    figure, drawn = go.Figure(), _stacked(marks)
    for number, name in enumerate(names):
        mine = [(height, site, mark) for height, site, mark in drawn if mark.name == name]
        if not mine:
            continue
        again, kind = divmod(number, len(MARKS))
        symbol, colour = MARKS[kind]
        figure.add_scatter(
            x=[mark.day for _, _, mark in mine],
            y=[height for height, _, _ in mine],
            text=[
                f"{site}, day {mark.day}: {name}<br>" + "<br>".join(wrap(mark.because, 80)) for _, site, mark in mine
            ],
            hovertemplate="%{text}<extra></extra>",
            mode="markers",
            name=name,
            showlegend=True,
            marker={"symbol": f"{symbol}-open" if again else symbol, "color": colour, "size": 11},
        )
    rows = [*marks][::-1]
    figure.update_yaxes(tickvals=[*range(len(rows))], ticktext=rows, range=[-0.6, len(rows) - 0.4])
    margin = 0.03 * max(last_day, 1)
    figure.update_xaxes(title_text="days since the site's first night", range=[-margin, last_day + margin])
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    return _finish(figure, n_rows=len(marks), top_px=26 + 22 * (1 + len(names) // 4), legend=legend)


def _stacked(marks: Mapping[str, Sequence[Mark]]) -> list[tuple[float, str, Mark]]:
    """Every mark with its site and its height: the site's row, less than half a row apart where days are shared."""
    stacked = []
    for row, (site, of_site) in enumerate(reversed([*marks.items()])):
        for day in sorted({mark.day for mark in of_site}):
            shared = [mark for mark in of_site if mark.day == day]
            step = min(0.4, 0.8 / max(1, len(shared) - 1))
            stacked += [(row + step * (n - (len(shared) - 1) / 2), site, mark) for n, mark in enumerate(shared)]
    return stacked


def _mark(number: int, n_states: int) -> dict[str, Any]:
    """The first state is a hollow circle, the last a filled one, those between have shapes of their own."""
    shapes = ("square", "diamond", "triangle-up", "cross", "star", "hexagon")
    if number == 0:
        return {"symbol": "circle-open", "size": 10, "color": COLOURS["reference"], "line": {"width": 2}}
    if number == n_states - 1:
        return {"symbol": "circle", "size": 10, "color": COLOURS["latest"]}
    return {"symbol": shapes[(number - 1) % len(shapes)], "size": 8, "color": COLOURS["earlier"]}


def _add_ridge(figure: "go.Figure", sample: Row, column: int) -> None:
    import plotly.graph_objects as go

    ridge = go.Violin(
        x=np.round(thin(sample.values), 5).tolist() or [None],
        y0=sample.label,
        name=sample.label,
        orientation="h",
        side="positive",
        width=1.5,
        points=False,
        spanmode="hard",
        meanline_visible=False,
        box={"visible": True, "width": 0.12},
        line={"color": COLOURS[sample.role], "width": 1.6},
        fillcolor=_faint(COLOURS[sample.role]),
        hoverinfo="x+name",
        hoveron="violins",
    )
    figure.add_trace(ridge, row=1, col=column)


def _add_interval(figure: "go.Figure", sample: Row, estimate: Estimate, column: int) -> None:
    import plotly.graph_objects as go

    dot = go.Scatter(
        x=[estimate.value],
        y=[sample.label],
        mode="markers",
        marker={"size": 10, "color": COLOURS[sample.role]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [estimate.high - estimate.value],
            "arrayminus": [estimate.value - estimate.low],
            "color": COLOURS[sample.role],
            "thickness": 2,
        },
        hovertemplate=f"%{{x:.2f}} [{estimate.low:.2f}, {estimate.high:.2f}]<extra>{sample.label}</extra>",
    )
    figure.add_trace(dot, row=1, col=column)


def _span(sides: Sequence[Sequence[Row]]) -> list[float]:
    """A range that holds 99 % of every sample: a single outlier must not flatten the rest."""
    known: list[Reals] = [sample.values for side in sides for sample in side if sample.values.size]
    if not known:
        return [0.0, 1.0]
    low = min(float(np.quantile(values, 0.005)) for values in known)
    high = max(float(np.quantile(values, 0.995)) for values in known)
    pad = 0.04 * (high - low) or max(abs(high), 1.0) * 0.05
    return [low - pad, high + pad]


def _finish(
    figure: "go.Figure",
    *,
    n_rows: int,
    row_px: int = ROW_PX,
    top_px: int = 26,
    legend: Mapping[str, Any] | None = None,
) -> str:
    figure.update_layout(
        height=EDGES_PX + 24 + row_px * max(n_rows, 2),
        margin={"l": 8, "r": 14, "t": top_px, "b": 44},
        showlegend=legend is not None,
        legend=legend,
        violingap=0,
        violinmode="overlay",
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        hoverlabel={"font": {"size": 12}},
        dragmode=False,
    )
    figure.update_xaxes(zeroline=False, fixedrange=True, nticks=6, title_font_size=11.5, title_standoff=6)
    figure.update_yaxes(zeroline=False, fixedrange=True, automargin=True, showgrid=True, ticks="")
    figure.update_annotations(font_size=11.5, yshift=2)
    return str(figure.to_json())


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.28)"


def as_script(figure: str) -> str:
    """JSON that may stand inside a `script` element."""
    facts: Any = json.loads(figure)
    return json.dumps({"data": facts["data"], "layout": facts["layout"]}).replace("</", "<\\/")
