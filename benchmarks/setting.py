"""Under which circumstances a figure was taken: what every result carries."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import confluent_kafka

import mrc

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def send(method: str, url: str, body: bytes | None = None) -> None:
    """Ask a Connect worker; one that is just rebalancing answers 409 or 500, and is asked again for half a minute.

    So it is where it answers 404, as it does for a connector that it has just made and has no status of yet.
    """
    until_s = time.monotonic() + 30
    while True:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
        try:
            urllib.request.urlopen(request, timeout=20).close()
        except urllib.error.HTTPError as error:
            if error.code not in (404, 409, 500) or time.monotonic() > until_s:
                raise
            time.sleep(1.0)
        else:
            return


def kafka_version() -> str:
    """Return the version of the brokers and of MirrorMaker, as the sandbox pins it."""
    pom = (ROOT / "mrc" / "sandbox" / "jars" / "pom.xml").read_text()
    return pom.partition("<kafka.version>")[2].partition("<")[0]


def circumstances(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return commit, machine, versions and the benchmark's own parameters."""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return {
        "commit": commit.strip(),
        "machine": {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        },
        "versions": {
            "mrc": mrc.__version__,
            "python": platform.python_version(),
            "confluent-kafka": confluent_kafka.version(),
            "kafka": kafka_version(),
        },
        "parameters": dict(parameters),
    }
