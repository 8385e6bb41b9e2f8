import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_core.errors import BadSetting, NoSuchPlace, SiteUnavailable
from platform_core.settings import SiteSettings
from platform_core.sources import dicomweb, orthanc, web
from platform_core.sources.contract import Item
from platform_core.sources.dicomweb import DICOMWEB
from tests.servers.faultproxy import FaultProxy, Rule, fault_proxy
from tests.servers.orthanc import Orthanc

REAL = Path(__file__).parents[1] / "data" / "dicom"
SERIES = [file.read_bytes() for file in sorted(REAL.glob("dcm_qa_ts/In/*.dcm"))[:6]]
OTHER = [file.read_bytes() for file in sorted(REAL.glob("dicom2nifti/generic/anatomical/001/*.dcm"))]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BACK_OFF_S", 0.01)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthanc, "PAGE", 3)


@pytest.fixture
def proxy(orthanc: Orthanc, tmp_path: Path) -> Iterator[FaultProxy]:
    with fault_proxy(orthanc.port, tmp_path) as found:
        yield found


def through(proxy: FaultProxy, server: Orthanc) -> SiteSettings:
    return server.settings.model_copy(update={"path": f"{proxy.endpoint}/dicom-web"})


def listing(settings: SiteSettings, cursor: str = "") -> tuple[list[Item], str]:
    pages = list(DICOMWEB.pages(settings, cursor))
    return [item for page in pages for item in page.items], pages[-1].cursor


def contents(settings: SiteSettings, items: list[Item]) -> list[bytes]:
    return [DICOMWEB.open(settings, item.address) for item in items]


def test_the_series_is_known_without_opening_the_file_and_the_time_is_that_of_arrival(orthanc: Orthanc) -> None:
    orthanc.send(SERIES)
    items, _ = listing(orthanc.settings)
    assert {item.series_uid for item in items} == {items[0].address.split("/")[1]}
    assert all(abs(item.modified_ns / 1e9 - time.time()) < 3600 for item in items)


def test_only_what_came_since_is_listed_late_slices_too(orthanc: Orthanc) -> None:
    orthanc.send(SERIES[:4])
    _, cursor = listing(orthanc.settings)
    assert listing(orthanc.settings, cursor) == ([], cursor)
    orthanc.send([*OTHER[:1], SERIES[4]])
    items, cursor = listing(orthanc.settings, cursor)
    assert contents(orthanc.settings, items) == [OTHER[0], SERIES[4]]
    orthanc.send(SERIES[5:])
    items, _ = listing(orthanc.settings, cursor)
    assert contents(orthanc.settings, items) == SERIES[5:]


def test_what_is_sent_again_is_listed_again(orthanc: Orthanc) -> None:
    orthanc.send(SERIES[:2])
    _, cursor = listing(orthanc.settings)
    orthanc.send(SERIES[:1])
    items, _ = listing(orthanc.settings, cursor)
    assert contents(orthanc.settings, items) == SERIES[:1]


def test_the_feed_is_read_page_by_page(orthanc: Orthanc, small_pages: None) -> None:
    orthanc.send(OTHER[:1])
    _, cursor = listing(orthanc.settings)
    orthanc.send([*SERIES, *OTHER[1:]])
    pages = list(DICOMWEB.pages(orthanc.settings, cursor))
    assert len(pages) > 2
    whole = [item for page in pages for item in page.items]
    assert contents(orthanc.settings, whole) == [*SERIES, *OTHER[1:]]
    for n, page in enumerate(pages[:-1], start=1):
        rest, _ = listing(orthanc.settings, page.cursor)
        assert [item for page in pages[:n] for item in page.items] + rest == whole


def test_what_comes_during_the_first_listing_is_not_lost(orthanc: Orthanc, small_pages: None) -> None:
    orthanc.send(SERIES)
    pages = DICOMWEB.pages(orthanc.settings, "")
    found = list(next(pages).items)
    orthanc.send(OTHER)
    last = ""
    for page in pages:
        found += page.items
        last = page.cursor
    later, _ = listing(orthanc.settings, last)
    assert {*contents(orthanc.settings, found + later)} == {*SERIES, *OTHER}


def test_a_deletion_during_the_first_listing_makes_the_next_one_whole(orthanc: Orthanc, small_pages: None) -> None:
    orthanc.send([*OTHER[:1], *SERIES])
    pages = DICOMWEB.pages(orthanc.settings, "")
    first = next(pages)
    other = orthanc.ask("/instances")[0]
    orthanc.ask(f"/instances/{other}", method="DELETE")
    cursor = [first, *pages][-1].cursor
    items, cursor = listing(orthanc.settings, cursor)
    assert contents(orthanc.settings, items) == SERIES
    assert cursor.startswith("changes:")


def test_another_server_at_the_same_address_is_listed_whole(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.send(SERIES)
    _, cursor = listing(orthanc.settings)
    orthanc.kill()
    tmp_path.joinpath("new").mkdir()
    other = Orthanc(tmp_path / "new", orthanc.port)
    try:
        other.start()
        other.send([*OTHER, *SERIES])
        items, _ = listing(orthanc.settings, cursor)
        assert len(items) == len(OTHER) + len(SERIES)
    finally:
        other.kill()


def test_a_feed_that_was_cleared_is_not_trusted(orthanc: Orthanc) -> None:
    orthanc.send(SERIES[:3])
    _, cursor = listing(orthanc.settings)
    orthanc.send(SERIES[3:])
    orthanc.ask("/changes", method="DELETE")
    assert len(listing(orthanc.settings, cursor)[0]) == len(SERIES)


def test_a_server_killed_in_the_middle_goes_on_where_it_was(orthanc: Orthanc, small_pages: None) -> None:
    orthanc.send([*SERIES, *OTHER])
    pages = DICOMWEB.pages(orthanc.settings, "")
    found = list((one := next(pages)).items)
    orthanc.kill()
    with pytest.raises(SiteUnavailable):
        next(pages)
    orthanc.start()
    rest, _ = listing(orthanc.settings, one.cursor)
    assert contents(orthanc.settings, found + rest) == [*SERIES, *OTHER]


def test_a_server_killed_while_it_is_queried_goes_on_where_it_was(
    orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "find_feed", lambda _: None)
    monkeypatch.setattr(dicomweb, "PAGE", 3)
    orthanc.send([*SERIES, *OTHER])
    whole, _ = listing(orthanc.settings)
    pages = DICOMWEB.pages(orthanc.settings, "")
    found = list((one := next(pages)).items)
    orthanc.kill()
    with pytest.raises(SiteUnavailable):
        list(pages)
    orthanc.start()
    assert found + listing(orthanc.settings, one.cursor)[0] == whole
    assert len(whole) == len(SERIES) + len(OTHER)


def test_a_server_that_caps_its_answers_is_listed_whole(orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "find_feed", lambda _: None)
    ask = web.Server.ask

    def capped(self: web.Server, address: str, params: object = None, *, json: object = None) -> object:
        return ask(self, address, params, json=json)[:2]  # type: ignore[arg-type]

    orthanc.send([*SERIES, *OTHER])
    monkeypatch.setattr(web.Server, "ask", capped)
    assert len(listing(orthanc.settings)[0]) == len(SERIES) + len(OTHER)


def test_a_server_that_knows_no_offset_is_listed_once(orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "find_feed", lambda _: None)
    ask = web.Server.ask

    def deaf(self: web.Server, address: str, params: object = None, *, json: object = None) -> object:
        return ask(self, address, None, json=json)

    orthanc.send([*SERIES, *OTHER])
    monkeypatch.setattr(web.Server, "ask", deaf)
    items, _ = listing(orthanc.settings)
    assert len(items) == len(set(items)) == len(SERIES) + len(OTHER)


def test_a_whole_series_comes_in_one_request(orthanc: Orthanc, proxy: FaultProxy) -> None:
    orthanc.send(SERIES)
    settings = through(proxy, orthanc)
    items, _ = listing(settings)
    proxy.fail()
    assert DICOMWEB.open_all is not None
    assert sorted(data for _, data in DICOMWEB.open_all(settings, items)) == sorted(SERIES)
    assert len(proxy.log) == 1
    proxy.fail()
    assert [data for _, data in DICOMWEB.open_all(settings, items[:2])] == SERIES[:2]
    assert len(proxy.log) == 2


@pytest.mark.parametrize("fault", ["truncate", "reset_before", "unavailable"])
def test_a_series_that_breaks_off_is_asked_for_again_and_none_comes_twice(
    orthanc: Orthanc, proxy: FaultProxy, fault: str
) -> None:
    orthanc.send(SERIES)
    settings = through(proxy, orthanc)
    items, _ = listing(settings)
    proxy.fail(Rule(fault, path="studies", times=2))  # type: ignore[arg-type]
    assert DICOMWEB.open_all is not None
    found = list(DICOMWEB.open_all(settings, items))
    assert sorted(data for _, data in found) == sorted(SERIES)
    assert proxy.count(fault) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["truncate", "reset_after", "unavailable"])
def test_a_listing_survives_a_server_that_fails_now_and_then(orthanc: Orthanc, proxy: FaultProxy, fault: str) -> None:
    orthanc.send(SERIES)
    settings = through(proxy, orthanc)
    proxy.fail(Rule(fault, first=2, times=3))  # type: ignore[arg-type]
    assert len(listing(settings)[0]) == len(SERIES)


def test_no_uid_and_no_password_reach_a_log_or_a_message(
    orthanc: Orthanc, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    orthanc.send(SERIES)
    settings = through(proxy, orthanc)
    with caplog.at_level(logging.DEBUG):
        items, _ = listing(settings)
        contents(settings, items[:1])
        proxy.fail(Rule("unavailable", times=99))
        with pytest.raises(SiteUnavailable) as down:
            DICOMWEB.open(settings, items[0].address)
        proxy.fail()
        with pytest.raises(NoSuchPlace) as gone:
            DICOMWEB.open(settings, items[0].address + "1")
    told = caplog.text + str(down.value) + str(gone.value)
    assert not any(uid in told for uid in items[0].address.split("/"))
    assert "secret" not in caplog.text


@pytest.mark.parametrize("path", ["", "host/dicom-web", "ftp://host/x", "https://", "http://[::1", "http://a b/c"])
def test_a_path_that_is_no_address_is_said_to_be_none(path: str) -> None:
    with pytest.raises(NoSuchPlace, match="correct `path`"):
        listing(SiteSettings(quiet_s=0, source="dicomweb", path=path))


def test_a_password_in_the_path_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadSetting) as found:
        listing(SiteSettings(quiet_s=0, source="dicomweb", path="https://user:hunter2@host/dicom-web"))
    assert "hunter2" not in str(found.value)
