"""What is made from the code is what the code says, and whoever forgets to make it is told."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from mrc.core.errors import CODES
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import TRANSITIONS
from scripts import docs
from tests.docs.reading import ROOT, between, rows


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with copies of the documents."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path


def words_of(name: str, part: str) -> set[str]:
    """The code in the first cell of each row of a made table."""
    found = rows(between((ROOT / name).read_text(), part))
    return {row[0].strip("`") for row in found if row[0].startswith("`")}


def test_the_documents_are_what_the_code_says() -> None:
    assert docs.main(["--check"]) == 0


def test_making_takes_less_than_two_seconds_and_changes_nothing_the_second_time(copy: Path) -> None:
    began_s = time.process_time()  # others may keep the machine busy
    assert docs.main([], copy) == 0
    first = {path: path.read_bytes() for path in copy.rglob("*.md")}
    assert docs.main([], copy) == 0
    assert {path: path.read_bytes() for path in copy.rglob("*.md")} == first
    assert time.process_time() - began_s < 2.0


@pytest.mark.parametrize("name", [*docs.WHOLE, *docs.PARTS])
def test_a_changed_document_is_named_and_made_again(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / name
    good = path.read_text()
    path.write_text(re.sub(r"^\| `.*\n", "", good, count=1, flags=re.MULTILINE) if name in docs.WHOLE else without_a_row(good, name))
    assert docs.main(["--check"], copy) == 1
    assert capsys.readouterr().err.rstrip().endswith(f": {name}")
    assert docs.main([], copy) == 0
    assert path.read_text() == good


def without_a_row(text: str, name: str) -> str:
    part = between(text, list(docs.PARTS[name])[-1])
    return text.replace(part, part.replace(next(line for line in part.splitlines() if line.startswith("| `")), ""))


def test_a_document_without_its_markers_is_an_error_and_not_written(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "docs" / "moves.md"
    path.write_text("# Moves\n")
    assert docs.main([], copy) == 1
    assert "<!-- BEGIN states" in capsys.readouterr().err
    assert path.read_text() == "# Moves\n"


def test_every_error_code_is_in_the_table() -> None:
    assert words_of("docs/operations.md", "errors") == set(CODES)


def test_every_action_is_in_the_table() -> None:
    assert words_of("docs/moves.md", "actions") == set(ACTIONS)


def test_every_metric_that_the_code_names_is_in_the_table() -> None:
    named = set(re.findall(r'"(mrc_[a-z_]+)"', (ROOT / "mrc" / "telemetry" / "metrics.py").read_text()))
    assert named
    assert words_of("docs/operations.md", "metrics") == named


def test_every_row_of_the_transition_table_is_an_arrow_of_the_diagram() -> None:
    drawn = between((ROOT / "docs" / "moves.md").read_text(), "states")
    arrows = {
        (begin, label) for begin, labels in re.findall(r"^ +(\w+) --> \w+ : (.*)$", drawn, re.MULTILINE) for label in labels.split(", ")
    }
    assert arrows == {(phase, event.__struct_config__.tag) for phase, event in TRANSITIONS}
