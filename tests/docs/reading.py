"""Documents as tests read them: sections, anchors, links, code blocks and the rows of tables."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced code block: what language its fence names, and its text."""

    language: str
    text: str


def tracked(*suffixes: str) -> list[Path]:
    """Files that belong to the repository and end like this; fails where git cannot say."""
    assert shutil.which("git"), "git says which files belong to the repository"
    said = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    names = said.stdout.decode().split("\0")
    return [path for name in names if name.endswith(suffixes) and (path := ROOT / name).is_file()]


def documents() -> list[Path]:
    """README and everything below docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    return [Block(language, body) for language, body in _FENCE.findall(text)]


def prose(text: str) -> str:
    """The text without its fenced code blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Targets of the links to other documents or places of this one."""
    return [target for target in _LINK.findall(prose(text)) if "://" not in target and not target.startswith("mailto:")]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them: lower case, hyphens for spaces, no other punctuation."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(text)):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower().strip())
        slug = plain.replace(" ", "-")
        number = 0
        while (one := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(one)
    return found


def rows(text: str) -> Iterator[tuple[str, ...]]:
    """The rows of every table, cell by cell; heads too."""
    for line in prose(text).splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            yield tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def between(text: str, name: str) -> str:
    """What stands between the markers of a made part."""
    found = re.search(rf"<!-- BEGIN {name}:.*?-->(.*?)<!-- END {name} -->", text, re.DOTALL)
    assert found is not None, name
    return found[1]
