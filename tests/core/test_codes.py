"""The table of error codes: nothing in it that nobody answers with."""

from __future__ import annotations

import re
from pathlib import Path

from mrc.core.errors import CODES

PACKAGE = Path(__file__).parents[2] / "mrc"


def test_every_error_code_is_used() -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "errors.py" or path.parent.name != "core")
    quoted = set(re.findall(r"""["']([A-Z][A-Z_]+)["']""", code)) | {"INVARIANT"}
    assert set(CODES) - quoted == set()
