"""The pages: whole, self-contained, and true to the tables."""

import re
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnknownName
from platform_core.manifest.workspace import Workspace
from platform_core.report.charts import as_script
from platform_core.report.fleet import headline, write_fleet_report
from platform_core.report.fleet_rows import SiteSummary
from platform_core.report.page import TRACK_PX, track
from platform_core.report.passport import write_passport
from platform_core.report.samples import MOST_POINTS, thin
from platform_core.report.spelling import count, number, p_value
from platform_core.shift.risk import Estimate

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "object": "data"}
VOID = {"meta", "br", "line", "circle", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: text outside of scripts and styles, tags that load, tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.loads, self.open, self.wrong = "", [], [], []  # type: ignore[var-annotated]
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.text += " "
        self.ids += [str(facts["id"])] if "id" in facts else []
        if LOADS.get(tag) in facts or str(facts.get("href", "#"))[:1] != "#":
            self.loads.append((tag, facts))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def read(workspace: Workspace, path: str) -> str:
    return workspace.objects.get(path).decode()


@pytest.fixture(scope="module")
def fleet_html(fleet: Workspace, at: datetime) -> str:
    return read(fleet, write_fleet_report(fleet, at=at))


@pytest.fixture(scope="module")
def passport_html(fleet: Workspace, at: datetime) -> str:
    return read(fleet, write_passport(fleet, "east", at=at))


def test_pages_are_well_formed_and_load_nothing(fleet_html: str, passport_html: str) -> None:
    for html in (fleet_html, passport_html):
        page = Page(html)
        assert (page.loads, page.open, page.wrong) == ([], [], [])
        assert len(page.ids) == len(set(page.ids))
        assert "@import" not in html.split("</style>")[0]


def test_the_plotting_library_is_inside_once_and_only_where_there_are_plots(
    fleet_html: str, passport_html: str
) -> None:
    assert fleet_html.count("plotly.js v") == 1
    assert len(passport_html) < 100_000


def test_the_fleet_page_says_at_once_what_is_wrong_and_where(fleet_html: str) -> None:
    text = " ".join(Page(fleet_html).text.split())
    assert "Of 4 sites, 1 needs a person, 1 shifted and was acted upon" in text
    first = text[: text.index("Why the risk is what it is")]
    assert first.index("east") < first.index("south") < first.index("north")
    assert "scans are made differently KS distance 0.97 [0.94, 0.99]" in first
    assert "change of prevalence +0.31 [0.24, 0.38]" in first
    assert "fine-tune (partial) · refused" in first


def test_every_plot_on_the_page_has_its_figure(fleet_html: str) -> None:
    wanted = re.findall(r'data-figure="([^"]+)"', fleet_html)
    page = Page(fleet_html)
    assert wanted
    assert set(wanted) <= set(page.ids)


def test_what_never_varies_is_not_plotted(fleet_html: str) -> None:
    assert "plot-site-0-noise_immerkaer_hu" in fleet_html
    assert "spacing_z_mm" not in fleet_html


def test_a_prevalence_is_drawn_where_a_mixture_fits_and_only_there(fleet_html: str) -> None:
    """South's scores are a mixture of north's classes in both periods; east's of its second period are not."""
    figures = dict(re.findall(r'id="figure-(site-\d-score)">(.*?)</script>', fleet_html))
    assert figures["site-1-score"].count('"mode": "markers"') == 2
    assert figures["site-0-score"].count('"mode": "markers"') == 1


def test_the_passport_names_machines_reasons_and_rules(passport_html: str) -> None:
    text = " ".join(Page(passport_html).text.split())
    assert "Gamma 128" in text
    assert "quarantined missing slice 2" in text
    assert "kernel stated warn 2" in text
    assert "contrast relative error not judged" in text


def test_an_empty_workspace_still_has_a_page(workspace: Workspace, at: datetime) -> None:
    html = read(workspace, write_fleet_report(workspace, at=at))
    assert "There are no sites yet" in html
    assert Page(html).wrong == []


def test_a_passport_of_a_site_that_does_not_exist_is_refused(fleet: Workspace, at: datetime) -> None:
    with pytest.raises(UnknownName, match="east"):
        write_passport(fleet, "nowhere", at=at)


def test_a_page_is_the_same_when_written_again(fleet: Workspace, passport_html: str, at: datetime) -> None:
    assert read(fleet, write_passport(fleet, "east", at=at)) == passport_html


def test_the_headline_counts_in_plain_english() -> None:
    assert headline([SiteSummary(site="a")]) == "The one site has not been measured yet."
    assert headline([SiteSummary(site="a"), SiteSummary(site="b")]) == "Of 2 sites, 2 have not been measured yet."


def test_a_figure_cannot_end_its_script() -> None:
    assert "</" not in as_script('{"data": [{"name": "</script><b>"}], "layout": {}}')


@given(st.lists(st.floats(-1e6, 1e6), max_size=1000))
def test_thinning_keeps_the_median_and_the_order(values: list[float]) -> None:
    sample = np.asarray(values)
    kept = thin(sample)
    assert kept.size == min(len(values), MOST_POINTS)
    assert (np.diff(kept) >= 0).all()
    if values:
        assert np.median(kept) == pytest.approx(np.median(sample), rel=1e-9, abs=1e-6)


@given(st.floats(0, 2), st.floats(0.01, 2))
def test_marks_stay_on_their_track(value: float, high: float) -> None:
    (mark,) = track(Estimate(value, value / 2, value * 2), None, high)
    assert 0 <= mark["low"] <= mark["x"] <= mark["high"] <= TRACK_PX


def test_numbers_are_spelt_for_people() -> None:
    assert (number(-0.5), number(0.31, signed=True), number(None)) == ("\N{MINUS SIGN}0.50", "+0.31", "unknown")
    assert (p_value(1e-9), p_value(0.04), count(12345)) == ("< 0.001", "0.040", "12\N{NARROW NO-BREAK SPACE}345")
