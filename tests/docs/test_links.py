"""Every path to a document, wherever it is written, leads to a place that exists."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.docs.reading import ROOT, anchors, documents, links, prose, tracked

_MENTION = re.compile(r"(?<![\w/.-])docs/[\w./-]+\.md(?:#[\w-]+)?")


def missing(base: Path, target: str) -> str:
    """Why the target leads nowhere; empty where it leads somewhere."""
    name, _, anchor = target.partition("#")
    path = base / name if name else base
    if not path.exists():
        return f"{target}: there is no such file"
    if anchor and anchor not in anchors(path.read_text()):
        return f"{target}: there is no such heading"
    return ""


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_to_a_file_and_a_heading(path: Path) -> None:
    wrong = [missing(path if target.startswith("#") else path.parent, target) for target in links(path.read_text())]
    assert [one for one in wrong if one] == []


def test_every_document_that_code_or_prose_mentions_exists() -> None:
    mentions = {
        (str(path.relative_to(ROOT)), mention)
        for path in tracked(".py", ".md", ".yaml", ".proto", ".toml", "Makefile", "lint")
        if "tests/docs" not in str(path)
        for mention in _MENTION.findall(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert ("mrc/core/errors.py", "docs/moves.md") in mentions
    assert [(name, why) for name, mention in sorted(mentions) if (why := missing(ROOT, mention))] == []


def test_the_index_leads_to_every_document() -> None:
    listed = {target.partition("#")[0] for target in links((ROOT / "docs" / "README.md").read_text())}
    here = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert here - listed == set()
    assert {f"adr/{path.name}" for path in (ROOT / "docs" / "adr").glob("*.md")} - listed == set() or "adr" in listed


def test_no_sentence_is_written_twice_in_a_row() -> None:
    for path in documents():
        lines = [line for line in prose(path.read_text()).splitlines() if line.strip() and not line.startswith("|")]
        assert [line for line, after in itertools.pairwise(lines) if line == after] == [], path.name
