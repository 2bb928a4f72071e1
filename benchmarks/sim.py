"""How many seeds of the simulation run in a minute on one core.

Usage: ``python -m benchmarks.sim``. Prints a line and writes ``benchmarks/results/sim.json``. The aim, 500 seeds in 90 s, is printed as
missed where it is; the exit code stays 0, for the machine may be busy.
"""

from __future__ import annotations

import json
import statistics
import time

from benchmarks.setting import RESULTS, circumstances
from mrc.sim.run import run

SEEDS = 500
AIM_PER_MINUTE = 500 / 1.5


def main() -> None:
    """Run the seeds and say how long they took."""
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
    (RESULTS / "sim.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
