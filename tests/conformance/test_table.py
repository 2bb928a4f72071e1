"""The comparison in the documentation speaks of the cases that there are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conformance.cases import CASES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "offset-translation.md"


def test_the_documented_table_has_a_row_for_each_case_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("<!-- conformance: begin -->")[2].partition("<!-- conformance: end -->")[0]
    tables = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(tables) == 2
    for table in tables:
        rows = re.findall(r"^\| ([A-Za-z0-9.-]+): ", table, flags=re.MULTILINE)
        assert rows == [case.name for case in CASES]
