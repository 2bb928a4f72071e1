"""How quick the command line is: `mrc --help` and `mrc status`, beside a bare start of Python.

Usage: ``python benchmarks/cli.py [--config mrc.yaml] [--runs 15] [--json FILE]``. `status` is measured where a
configuration is given whose agents answer. A missed aim is printed as missed; the exit code stays 0, for the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

AIMS_MS = {"help": 200.0, "status": 600.0}


class Measured(NamedTuple):
    """Milliseconds of the runs of one command; the aim is for their median."""

    name: str
    median_ms: float
    worst_ms: float
    aim_ms: float | None

    @property
    def verdict(self) -> str:
        """What the aim says of the median."""
        if self.aim_ms is None:
            return "reference"
        return "met" if self.median_ms < self.aim_ms else "MISSED"


def once_ms(command: list[str]) -> float:
    """Run the command and return how long it took. Raises CalledProcessError where it failed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return (time.perf_counter() - began) * 1000


def measure(commands: dict[str, list[str]], runs: int) -> list[Measured]:
    """Measure the commands in turns, so that a busy moment meets all of them; the first turn only warms the caches."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            took = once_ms(command)
            if turn:
                taken[name].append(took)
    return [Measured(name, statistics.median(times), max(times), AIMS_MS.get(name)) for name, times in taken.items()]


def main() -> None:
    """Measure, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="a configuration whose agents answer; without it `status` is not measured")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    mrc = [sys.executable, "-m", "mrc"]
    commands = {"python": [sys.executable, "-c", "pass"], "help": [*mrc, "--help"]}
    if asked.config:
        commands["status"] = [*mrc, "--config", str(asked.config), "status"]
    results = measure(commands, asked.runs)
    reference_ms = results[0].median_ms
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}, load per core {busy:.2f}, {asked.runs} runs each")
    print(f"{'command':<10}{'median ms':>11}{'worst ms':>10}{'x python':>10}{'aim ms':>8}  verdict")
    for one in results:
        aim = f"{one.aim_ms:.0f}" if one.aim_ms is not None else "-"
        print(f"{one.name:<10}{one.median_ms:>11.0f}{one.worst_ms:>10.0f}{one.median_ms / reference_ms:>10.1f}{aim:>8}  {one.verdict}")
    if not asked.config:
        print("status: not measured; name a configuration with --config")
    if asked.json:
        rows = [{**one._asdict(), "verdict": one.verdict} for one in results]
        asked.json.write_text(json.dumps({"load_per_core": busy, "runs": asked.runs, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
