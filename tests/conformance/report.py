"""What a run says of the strategies, beside one another: build/conformance.json."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conformance.cases import CASES
from tests.conformance.running import Run

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "conformance.json"
STRATEGIES = ("exact", "mm2", "identity", "timestamp")


def report(run: Run) -> dict[str, Any]:
    """Return what each strategy would have cost in each case: most records read again, events skipped, positions refused."""
    return {"took_s": run.took_s, "cases": {case.name: _case(run, case.name) for case in CASES}}


def _case(run: Run, name: str) -> dict[str, Any]:
    case = next(case for case in CASES if case.name == name)
    places = [place for place in case.places if run.variant in place.variants]
    row: dict[str, Any] = {"about": case.about, "positions": len(places)}
    for strategy in STRATEGIES:
        repeated = skipped = refused = 0
        for place in places:
            position = run.positions[name, place.label]
            offset = run.answers[strategy][position].offset
            if offset is None or position.target_where not in run.targets:
                refused += 1
                continue
            cost = run.cost(case, position, offset)
            repeated = max(repeated, cost.repeated)
            skipped += len(cost.skipped)
        row[strategy] = {"reread": repeated, "skipped": skipped, "refused": refused}
    return row


def keep(run: Run) -> None:
    """Put a run's report beside that of the other variant."""
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    kept |= {"commit": commit.strip(), "cores": os.cpu_count(), run.variant: report(run)}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def table(kept: Mapping[str, Any], variant: str) -> str:
    """Return one variant's comparison in Markdown: re-read / skipped / refused by each strategy."""
    lines = [
        "| case | positions | mrc | MirrorMaker 2 | same offset | by timestamp |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in kept[variant]["cases"].items():
        cells = [f"{row[s]['reread']} / {row[s]['skipped']} / {row[s]['refused']}" for s in STRATEGIES]
        lines.append(f"| {name}: {row['about']} | {row['positions']} | {' | '.join(cells)} |")
    return "\n".join(lines)
