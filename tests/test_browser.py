"""The report's page in a real browser: nothing runs, nothing is loaded, and what was meant as markup is read as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mrc.core.failover.report_page import POLICY, page
from tests.browser import Browser
from tests.core.test_report_page import HOSTILE, REPORTS, everywhere

pytestmark = pytest.mark.browser

BEACON = '<img src="http://evil.invalid/seen"><script>document.title="hacked"</script>'
WITH_BEACON = (BEACON, *HOSTILE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


def written(folder: Path, html: str) -> Path:
    path = folder / "report.html"
    path.write_bytes(html.encode())
    return path


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("guarded", [True, False], ids=["as it is", "without its policy"])
def test_a_page_full_of_hostile_text_runs_and_loads_nothing_and_shows_it(
    browser: Browser, tmp_path: Path, name: str, guarded: bool
) -> None:
    html = page(everywhere(REPORTS[name], lambda text: f"{text} {' '.join(WITH_BEACON)}"))
    assert POLICY.replace("'", "&#x27;") in html
    path = written(tmp_path, html if guarded else html.replace(POLICY.replace("'", "&#x27;"), "default-src * 'unsafe-inline'"))
    browser.open(path)
    assert browser.requested() == [path.as_uri()]
    assert browser.complaints() == []
    assert browser.value("document.querySelectorAll('script, img, [onerror], [onload]').length") == 0
    assert "evil.invalid" in browser.value("document.title")
    shown = browser.value("document.querySelector('td').innerText")
    assert all(" ".join(one.split("\x00")[0].split("\u202e")[0].split()) in shown for one in WITH_BEACON)


def test_the_browser_tells_of_what_a_page_loads_and_of_what_goes_wrong_in_it(browser: Browser, tmp_path: Path) -> None:
    path = written(tmp_path, f"<!doctype html><title>a</title>{BEACON}<script>throw new Error('wrong')</script>")
    browser.open(path)
    assert browser.requested() == [path.as_uri(), "http://evil.invalid/seen"]
    assert any(said["method"] == "Runtime.exceptionThrown" for said in browser.complaints())
    assert browser.value("document.title") == "hacked"


def test_the_policy_alone_would_keep_markup_from_running(browser: Browser, tmp_path: Path) -> None:
    path = written(tmp_path, page(REPORTS["switchover"]).replace("<body>", f"<body>{BEACON}"))
    browser.open(path)
    assert "hacked" not in browser.value("document.title")
    assert len([said for said in browser.complaints() if "Content Security Policy" in str(said)]) == 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_can_be_read_in_light_and_in_dark_on_a_narrow_screen_too(browser: Browser, tmp_path: Path, dark: bool) -> None:
    browser.open(written(tmp_path, page(REPORTS["switchover"])))
    browser.picture(390, 900, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    assert browser.value(CONTRAST) >= 4.5


CONTRAST = """(() => {
  const light = (css) => {
    const linear = (c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const parts = css.match(/[0-9.]+/g).slice(0, 3).map((one) => linear(one / 255));
    return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll('p, td, th, h1, h2, dd, dt, .good, .bad')].map((one) => {
    const ink = light(getComputedStyle(one).color);
    return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
  }));
})()"""
"""The lowest contrast of the page's text to its ground, as WCAG 2 defines it."""
