"""A report in a real browser, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pesfit.report.page.output import write_report
from tests.report.browser import CHROMIUM, Browser
from tests.report.report_samples import sections

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
INK = "getComputedStyle(document.querySelector('.scroll:not(.narrow) svg text')).fill"


@pytest.fixture(scope="module", name="page")
def _page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("report")
    write_report(folder, "A report", "with all kinds of content", sections())
    return folder / "index.html"


@pytest.fixture(scope="module", name="browser")
def _browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_nothing_is_asked_for(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.events.clear()
    browser.open(page, width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert [event["entry"] for event in browser.of("Log.entryAdded")] == []
    assert browser.of("Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    addresses = {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")}
    assert {address for address in addresses if not address.startswith("data:")} == {page.as_uri()}


def test_figures_follow_the_theme(browser: Browser, page: Path) -> None:
    colors = []
    for dark in (False, True):
        browser.open(page, 1280, dark=dark)
        colors.append((browser.evaluate(BACKGROUND), browser.evaluate(INK)))
    (light, ink), (dark_surface, dark_ink) = colors
    assert light != dark_surface
    assert ink != dark_ink


def test_each_width_has_its_own_drawing(browser: Browser, page: Path) -> None:
    shown = "[...document.querySelectorAll('#figure-panels .scroll')].filter(each => each.offsetHeight > 0).map(each => each.className)"
    browser.open(page, 1280)
    assert browser.evaluate(shown) == ["scroll wide"]
    browser.open(page, 390)
    assert browser.evaluate(shown) == ["scroll narrow"]


def test_wide_tables_scroll_in_their_own_box(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    inside, outside = browser.evaluate(
        "(() => { const box = document.querySelector('figure.table .scroll'); return [box.scrollWidth, box.clientWidth]; })()"
    )
    assert inside > outside
    assert outside <= 390


def test_it_fits_on_paper(browser: Browser, page: Path) -> None:
    browser.open(page, 760, media="print")
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
