"""``mrc rules`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrc.cli.main import run

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RULES, CASES = str(EXAMPLES / "conflicts.yaml"), str(EXAMPLES / "conflicts.test.yaml")


def test_check_shows_the_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--output", "json", "rules", "check", RULES]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["entity"], row["topics"], row["rules"], len(row["hash"])) == ("order", ["orders"], 5, 16)


def test_the_example_s_cases_end_as_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--output", "json", "rules", "test", RULES, CASES]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 6
    assert all(row["wrong"] == [] for row in rows)


def test_a_case_that_ends_otherwise_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(Path(CASES).read_text().replace("{winner: w1, rule: shipped-beats-cancelled}", "{winner: e2, rule: default}", 1))
    assert run(["rules", "test", RULES, str(path)]) == 3
    shown = capsys.readouterr()
    assert "w1 stands, not e2" in shown.out
    assert "east's Cancelled e2 (number 2) had seen nothing of west" in shown.err
    assert "precedence is Shipped before Cancelled" in shown.err


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ("seen: [e1]", "seen: [w9]", "has seen w9"),
        ("region: west", "region: north", "no region of the rules"),
        ("id: w1", "id: e1", "told twice"),
        ("entity: order", "entity: parcel", "the rules know order"),
        ("expect: {winner: w1, ", "expect: {", "winner"),
    ],
)
def test_a_story_that_contradicts_itself_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], was: str, becomes: str, words: str
) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(Path(CASES).read_text().replace(was, becomes, 1))
    assert run(["rules", "test", RULES, str(path)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "RULES_INVALID" in said
