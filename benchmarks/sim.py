"""How many seeds of the simulation run in a minute on one core.

Usage: ``python -m benchmarks.sim [--json FILE]``. Prints a line and writes the results. The aim, 500 seeds in 90 s, is printed as
missed where it is; the exit code stays 0, for the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from benchmarks.setting import RESULTS, circumstances
from mrc.sim.run import run

SEEDS = 500
AIM_PER_MINUTE = 500 / 1.5


def main() -> None:
    """Run the seeds and say how long they took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sim", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "sim.json", help="where results go (default %(default)s)")
    asked = parser.parse_args()
    took_s: list[float] = []
    events = failed = 0
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    for seed in range(SEEDS):
        one_s = time.monotonic()
        outcome = run(seed)
        took_s.append(time.monotonic() - one_s)
        events += outcome.counts["events"]
        failed += bool(outcome.violations)
    seconds, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    found = {
        "seeds_per_minute": round(SEEDS / seconds * 60, 1),
        "seeds_per_cpu_minute": round(SEEDS / cpu_s * 60, 1),
        "seconds": round(seconds, 1),
        "seed_ms_p50": round(statistics.median(took_s) * 1000, 1),
        "seed_ms_max": round(max(took_s) * 1000, 1),
        "events_per_seed": round(events / SEEDS),
        "failed": failed,
        **circumstances({"seeds": SEEDS}),
    }
    missed = "" if seconds / SEEDS * 500 <= 90 else f"; MISSED: the aim is {AIM_PER_MINUTE:.0f} a minute"
    print(f"{SEEDS} seeds in {seconds:.1f} s, {found['seeds_per_minute']} a minute, {failed} failed{missed}")
    asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
