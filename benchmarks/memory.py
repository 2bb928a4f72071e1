"""Memory of the offset map of one partition whose logs are read from their beginnings: 1 and 5 million records, and more by arithmetic.

Usage: ``python -m benchmarks.memory [--records N ...]``. Each size runs in a process of its own; what is reported is the highest
resident size beyond that of the same process before it read anything. The records are made on the fly and hold no memory.
Writes ``benchmarks/results/memory.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mrc.core.model import Seen
from mrc.core.translation.aligner import Aligner
from mrc.core.translation.offset_map import OffsetMap

RESULTS = Path(__file__).resolve().parent / "results" / "memory.json"
RECORDS = (1_000_000, 5_000_000)
PIECE = 5_000
SCENARIOS = {"at-least-once": 0, "exactly-once, 500 records a transaction": 500, "exactly-once, 20 records a transaction": 20}
"""Name -> after how many copies the target holds a marker; 0: never."""


def pieces(count: int, marker_every: int) -> Iterator[tuple[list[Seen], list[Seen]]]:
    """Yield both logs in pieces, as readers would bring them."""
    for begin in range(0, count, PIECE):
        numbers = range(begin, min(begin + PIECE, count))
        prints = [(n * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF for n in numbers]
        shift = [n // marker_every if marker_every else 0 for n in numbers]
        yield (
            [Seen(n, n, face) for n, face in zip(numbers, prints, strict=True)],
            [Seen(n + more, n, face) for n, more, face in zip(numbers, shift, prints, strict=True)],
        )


def measure(count: int, marker_every: int) -> dict[str, float]:
    """Align one partition of ``count`` records in this process."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    known = OffsetMap(0, 0)
    aligner = Aligner(known)
    began_s = time.process_time()
    for here, there in pieces(count, marker_every):
        aligner.feed_source(here, here[-1].offset + 1)
        aligner.feed_target(there, there[-1].offset + 1)
    took_s = time.process_time() - began_s
    after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mb": round((after_kb - before_kb) / 1024, 1), "runs": len(known), "records_per_s": round(count / took_s)}


def main() -> int:
    """Measure every scenario and size; print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=list(RECORDS))
    parser.add_argument("--one", nargs=2, type=int, metavar=("COUNT", "MARKER_EVERY"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(*asked.one)))
        return 0
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, marker_every in SCENARIOS.items():
        for count in asked.records:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", str(count), str(marker_every)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = found.setdefault(name, {})[str(count)] = json.loads(done.stdout)
            print(
                f"{name:42} {count:>10,} records: {row['mb']:6.1f} MB, {row['runs']:>8,} runs, {row['records_per_s']:>9,} records/s",
                flush=True,
            )
        few, many = (found[name][str(count)] for count in (asked.records[0], asked.records[-1]))
        if len(asked.records) > 1:
            growth = (many["mb"] - few["mb"]) / (asked.records[-1] - asked.records[0]) * 1_000_000
            print(f"{name:42} grows by {growth:.2f} MB per million records; by arithmetic 26 bytes a run until 500,000 runs, then no more")
    RESULTS.write_text(json.dumps({"cores": os.cpu_count(), "partitions": 1, "scenarios": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
