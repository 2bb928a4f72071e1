"""Whatever stands in an execution is text on its page, and is seen there."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrc.core.failover.execution import Did, Started, Verified
from mrc.core.failover.markup import element, visible
from mrc.core.failover.report import Report
from mrc.core.failover.report_page import page
from tests.core import reported
from tests.core.test_report import ALL, LAG, SETTLED, failback, failover

HOSTILE = (
    "<script>document.title='hacked'</script>",
    '"><img src=x onerror="document.title=1">',
    "</title></style></svg><script>alert(1)</script>",
    "' onload='alert(1)' x='",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "<!-- --><![CDATA[ ]]>",
    "{{7*7}} ${7*7} javascript:alert(1)",
    "evil\u202egnp.exe \x00\x1b[2J \ufeff\u2028 \ud800",
)
"""Keys, group names and messages as somebody would write them who means harm."""

FIXED = ("document", "verdict", "type", "name")
"""Keys whose values the report's shape allows only some words for; a step's name is one of few that are no such."""


def everywhere(report: Report, put: Callable[[str], str]) -> Report:
    """Return the report with every string of it replaced, where its shape lets any be."""

    def walk(value: Any, key: str, above: str) -> Any:
        if isinstance(value, dict):
            return {name: walk(one, name, key) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [walk(one, key, above) for one in value]
        fixed = key in FIXED and not (key == "name" and above == "steps")
        return put(value) if isinstance(value, str) and value and not fixed else value

    return msgspec.convert(walk(msgspec.to_builtins(report), "", ""), Report)


class Structure(HTMLParser):
    """A page's elements with the names of their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.other: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def unknown_decl(self, data: str) -> None:
        self.other.append(data)


REPORTS = {
    "switchover": reported.report(reported.archived()),
    "failover": reported.report(failover(*ALL, samples=LAG), reported.ledger(3, 0)),
    "settled": reported.report(failover(*ALL, samples=LAG), reported.ledger(3, 4, accounts=SETTLED)),
    "failback": reported.report(failback(), reported.ledger(3, 4, accounts=SETTLED)),
    "running": reported.report(failover(Started(), Did("preflight", 100), Verified("preflight", 100, "yes")), now_ms=200_000),
}


@pytest.mark.parametrize("name", REPORTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(st.sampled_from(HOSTILE) | st.text(min_size=1), min_size=1, max_size=8))
def test_no_string_of_an_execution_becomes_markup(name: str, texts: list[str]) -> None:
    numbers: dict[str, int] = {}

    def number(said: str) -> int:
        """The same for the same string: what belongs together by its name still does."""
        return numbers.setdefault(said, len(numbers))

    hostile = Structure(page(everywhere(REPORTS[name], lambda said: f"{texts[number(said) % len(texts)]}{number(said)}")))
    plain = Structure(page(everywhere(REPORTS[name], lambda said: f"x{number(said)}")))
    assert hostile.elements == plain.elements
    assert not hostile.other


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_holds_no_script_and_no_address(name: str) -> None:
    found = Structure(page(REPORTS[name]))
    assert not {tag for tag, _ in found.elements} & {"script", "link", "img", "iframe", "object", "embed", "a", "base", "form"}
    assert not {one for one in found.attributes if one.startswith("on")} | found.attributes & {"href", "src", "srcset", "style"}
    assert "url(" not in page(REPORTS[name])
    assert "@import" not in page(REPORTS[name])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_seen_as_it_was_written(hostile: str) -> None:
    shown = Structure(page(everywhere(REPORTS["failover"], lambda text: f"{hostile} {text}"))).text
    for said in ("nobody", "seen", "RTO_EXCEEDED", "orders-0", "test"):
        if said in page(REPORTS["failover"]):
            assert f"{visible(hostile)} {said}" in shown, said
    page(everywhere(REPORTS["failover"], lambda _: hostile)).encode()


def test_characters_that_nobody_sees_are_written_out() -> None:
    assert visible("a\u202eb\x00\u200b\ud800é\n字") == "a\\u202eb\\x00\\u200b\\ud800é\n字"
    assert element("b", "<i>", title='"') == '<b title="&quot;">&lt;i&gt;</b>'


def test_a_page_shows_what_became_of_each_record_and_by_which_one_it_was_superseded() -> None:
    for name in ("settled", "failback"):
        html = page(REPORTS[name])
        assert "orders-0 @ 501" in html
        assert "orders-0 @ 777" in html
        assert "unexplained" in html
    assert "What was recovered" in page(REPORTS["failback"])
    assert "unexplained" not in page(REPORTS["failover"])


def test_what_is_unknown_is_said_and_never_drawn_as_zero() -> None:
    html = page(REPORTS["failover"])
    assert "cluster-unreachable (1)" in html
    assert 'class="unread"' in html
    assert "at least 1.50 s" in html
    bare = page(reported.report(msgspec.structs.replace(failover(*ALL), measured=None)))
    assert "Unknown: no samples were taken" in bare
    assert "polyline" not in bare
