"""Whatever can stand against a move is explained: where a finding's code is no error code, moves.md says what to do."""

from __future__ import annotations

import ast
import functools
import re

from mrc.core.errors import CODES
from tests.docs.reading import ROOT, rows

MAKERS = {"FindingView", "Changed", "_error", "_finding", "_unreachable"}
_CODE = re.compile(r"[A-Z]+(?:_[A-Z0-9]+)+")


@functools.cache
def codes() -> frozenset[str]:
    """Every code that the package makes a finding with."""
    texts = [text for path in (ROOT / "mrc").rglob("*.py") if any(f"{maker}(" in (text := path.read_text()) for maker in MAKERS)]
    calls = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in MAKERS]
    values = [value for call in made for value in [*call.args, *(word.value for word in call.keywords if word.arg == "code")]]
    return frozenset(
        value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str) and _CODE.fullmatch(value.value)
    )


def test_every_finding_is_an_error_code_or_has_a_row() -> None:
    explained = {code for row in rows((ROOT / "docs" / "moves.md").read_text()) for code in _CODE.findall(row[0])}
    found = codes()
    assert {"SUPER_USER", "ACL_SYNC_ON", "RECORDS_CHANGED", "NO_ACTIVE_RECORD"} <= found
    assert found - set(CODES) - explained == set()


def test_no_code_is_explained_that_nothing_says() -> None:
    text = (ROOT / "docs" / "moves.md").read_text() + (ROOT / "docs" / "operations.md").read_text()
    said = set(re.findall(r"`([A-Z]+(?:_[A-Z0-9]+)+)`", text))
    assert said - codes() - set(CODES) == set()
