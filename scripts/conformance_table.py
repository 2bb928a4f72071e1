"""Put the comparison of translators into docs/offset-translation.md, from the last run of the conformance tests.

Usage: ``python scripts/conformance_table.py [build/conformance.json]``, after ``MRC_CONFORMANCE=all make e2e K=conformance``.
What stands between the markers ``<!-- conformance: begin -->`` and ``<!-- conformance: end -->`` is made anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the code beside this script is meant, whatever is installed

from tests.conformance.case import VARIANTS  # noqa: E402 - needs the path above
from tests.conformance.report import RESULTS, table  # noqa: E402

DOCUMENT = ROOT / "docs" / "offset-translation.md"
BEGIN = "<!-- conformance: begin -->"
END = "<!-- conformance: end -->"
TITLES = {"plain": "MirrorMaker 2 as it is", "exactly-once": "MirrorMaker 2 with exactly-once"}


def section(kept: dict[str, Any]) -> str:
    """Return what stands between the markers."""
    parts = [f"### {TITLES[variant]}\n\n{table(kept, variant)}" for variant in VARIANTS]
    return "\n\n".join([*parts, f"Commit {kept['commit']}, {kept['cores']} cores."])


def main(arguments: list[str]) -> int:
    """Write the table; 1 where a variant has not been run."""
    path = Path(arguments[0]) if arguments else RESULTS
    kept = json.loads(path.read_text()) if path.is_file() else {}
    missing = [variant for variant in VARIANTS if variant not in kept]
    if missing:
        print(f"{path} has no run of {', '.join(missing)}", file=sys.stderr)
        return 1
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{DOCUMENT} has not one pair of markers {BEGIN} and {END}", file=sys.stderr)
        return 1
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{section(kept)}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
