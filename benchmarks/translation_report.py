"""What comes of `translation.py`'s scenarios: their aims, the table for people, the results file and the table in the docs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN = "<!-- translation benchmark: begin -->"
END = "<!-- translation benchmark: end -->"


def missed(name: str, row: Mapping[str, Any]) -> list[str]:
    """Return the aims that a scenario's row misses."""
    found = [f"mrc_skipped is {row['mrc_skipped']}, the aim is 0"] if row["mrc_skipped"] else []
    if row.get("mrc_missing"):
        found.append(f"mrc_missing is {row['mrc_missing']}, the aim is 0")
    if row["mrc_over_its_bound"]:
        found.append(f"{row['mrc_over_its_bound']} positions re-read more than mrc's bound")
    if name != "restart-duplicates":
        if row["mrc_reread_max"]:
            found.append(f"mrc_reread_max is {row['mrc_reread_max']}, the aim is 0")
        if row["exact_share"] < 1:
            found.append(f"exact_share is {row['exact_share']}, the aim is 1")
    return found


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rows as people read them."""
    lines = [
        f"{'':<20}{'---- MirrorMaker 2 ----':>30}{'------- mrc -------':>34}",
        f"{'scenario':<20}{'median':>9}{'max':>8}{'skipped':>8}{'none':>5}{'median':>9}{'max':>8}{'skipped':>8}{'exact':>9}",
    ]
    for name, row in rows.items():
        theirs = f"{_number(row['mm2_reread_median']):>9}{_number(row['mm2_reread_max']):>8}{row['mm2_skipped']:>8}{row['mm2_missing']:>5}"
        ours = f"{_number(row['mrc_reread_median']):>9}{_number(row['mrc_reread_max']):>8}{row['mrc_skipped']:>8}{row['exact_share']:>9.3f}"
        lines.append(f"{name:<20}{theirs}{ours}")
        lines += [f"{'':<20}MISSED: {words}" for words in missed(name, row)]
    return "\n".join(lines)


def markdown(result: Mapping[str, Any]) -> str:
    """Return a result as a table for the docs."""
    lines = [
        "| scenario | positions | MirrorMaker 2 re-reads: median | most | mrc re-reads: median | most | skipped by mrc | exact |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in result["scenarios"].items():
        theirs = f"{_number(row['mm2_reread_median'])} | {_number(row['mm2_reread_max'])}"
        ours = f"{_number(row['mrc_reread_median'])} | {_number(row['mrc_reread_max'])} | {row['mrc_skipped']} | {row['exact_share']:.1%}"
        lines.append(f"| {name} | {row['positions']} | {theirs} | {ours} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def write_into(document: Path, result: Mapping[str, Any]) -> None:
    """Put the table between the markers of a document."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    taken = ", ".join(dict.fromkeys(str(row.get("commit", result["commit"])) for row in result["scenarios"].values()))
    document.write_text(f"{before}{begin}\n{markdown(result)}\n\nCommit {taken}, {result['machine']['cores']} cores.\n{end}{after}")


def merged(before: Mapping[str, Any], now: Mapping[str, Any], order: list[str]) -> dict[str, Any]:
    """Return this run's result with the scenarios of an earlier one that it did not run.

    They are kept only where parameters, machine and versions are the same: a table must compare what is comparable.
    """
    alike = all(before.get(part) == now[part] for part in ("parameters", "machine", "versions"))
    rows = {**(before.get("scenarios", {}) if alike else {}), **now["scenarios"]}
    return {**now, "scenarios": {name: rows[name] for name in order if name in rows}}


def earlier(path: Path) -> dict[str, Any]:
    """Return what a results file holds; nothing where there is none. Raises ValueError where it is no JSON."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found
