"""How many events a second one resolver process resolves, exactly once and durably, and how long it takes to restore its state.

One region of a sandbox. Half of the events stand in its own topic, half in that of the other region's copies, with that region's marks
(one for each `MARK_EVERY` events of a partition); all are written before the resolver starts, about one entity in ten events, 3 partitions,
150 bytes. Timed is from the first event that is counted to the last that is final: read, decided, written to what stands, to the
conflicts and to the changelog in transactions, and to disk. Then its disk is deleted, and timed is from the start of a process until
it has its share again. Processor time and peak resident memory are the kernel's. A missed aim is printed as MISSED (exit code 3).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import yaml
from confluent_kafka import Producer

from benchmarks.setting import RESULTS, ROOT, circumstances
from mrc.adapters.kafka import Access, KafkaCluster
from mrc.config.conflicts import load_conflicts
from mrc.core.conflict.events import Hlc
from mrc.core.conflict.headers import Stamp, headers
from mrc.core.conflict.partition import Mark
from mrc.core.model import Region, encode
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox

EVENTS = 300_000
EVENTS_PER_ENTITY = 10
MARK_EVERY = 1_000
PARTITIONS = 3
EAST, WEST = Region("east"), Region("west")
TYPES = ("Placed", "Cancelled", "Shipped", "Delivered")
AIM_PER_S = 50_000
AIM_RESTORE_S = 20.0
AIM_RSS_MB = 500
IN_TIME_S = 900.0


class Run(NamedTuple):
    """One life of the resolver."""

    process: subprocess.Popen[bytes]
    log: Path
    metrics: str

    def counted(self) -> tuple[int, int]:
        """Return how many events were counted, and how many of them are not final; (0, 0) before it serves."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except urllib.error.URLError:
            return 0, 0
        told = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        events = sum(float(value) for name, _, value in told if name.startswith("mrc_resolver_events_total"))
        pending = sum(float(value) for name, _, value in told if name.startswith("mrc_resolver_pending_events"))
        return int(events), int(pending)

    def shares(self) -> bool:
        """Whether it has its share of the partitions."""
        return '"share"' in self.log.read_text()

    def used(self) -> tuple[float, float]:
        """Return its processor time in seconds and its peak resident memory in MB."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        peak = next(line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024

    def end(self) -> None:
        """End it, and see that it ended well."""
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            raise SystemExit(f"the resolver failed; see {self.log}")


def start(sandbox: Sandbox, config: Path, number: int) -> Run:
    """Start a resolver."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    log = sandbox.state.folder / f"resolver-{number}.log"
    words = ["--config", str(config), "resolver", "run", "--region", EAST, "--state", str(sandbox.state.folder / "resolver")]
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "mrc", *words, "--metrics", metrics], stdout=file, stderr=file)
    return Run(process, log, metrics)


def load(sandbox: Sandbox, rules: str, events: int) -> None:
    """Write all events and the other region's marks."""
    choose = random.Random(1)
    producer = Producer({**sandbox.client_config(EAST, "admin"), "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    began_ms = int(time.time() * 1000) - events // 10 - 60_000
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    for number in range(events):
        region = choose.choice((EAST, WEST))
        key = choose.randrange(events // EVENTS_PER_ENTITY)
        partition, hlc, id = key % PARTITIONS, Hlc(began_ms + number // 10, number % 10), f"{region}-{number}"
        seen = {WEST if region == EAST else EAST: number} if choose.random() < 0.9 else {}
        stamp = headers(Stamp(region, id, {**seen, region: number + 1}, hlc))
        value = json.dumps({"event": choose.choice(TYPES), "amount": number % 500, "pad": "x" * 100}).encode()
        topic = "orders" if region == EAST else "west.orders"
        producer.produce(topic, value, f"order-{key}".encode(), partition, headers=list(stamp))
        if region == WEST:
            offsets[partition] += 1
            if offsets[partition] % MARK_EVERY == 0:
                mark = Mark(offsets[partition], id, hlc.wall_ms - 1, hlc.wall_ms + 300_000, rules)
                producer.produce("west.mrc.watermarks.orders", encode(mark), b"mark", partition)
        producer.poll(0)
    for partition in range(PARTITIONS):
        id = f"end-{partition}"
        stamp = headers(Stamp(WEST, id, {WEST: events + 1}, Hlc(began_ms + events // 10)))
        producer.produce("west.orders", b'{"event": "Placed"}', id.encode(), partition, headers=list(stamp))
        mark = Mark(offsets[partition] + 1, id, began_ms + 3_600_000, began_ms + 3_600_000, rules)
        producer.produce("west.mrc.watermarks.orders", encode(mark), b"mark", partition)
    if producer.flush(300):
        raise SystemExit("the events could not be written")


def prepared(sandbox: Sandbox, events: int) -> Path:
    """Make the topics, write the events, and return the configuration."""
    rules = sandbox.state.folder / "conflicts.yaml"
    shutil.copy(ROOT / "docs" / "examples" / "conflicts.yaml", rules)
    settings = yaml.safe_load(sandbox.config_path.read_text())
    settings["replication_groups"][0] |= {"mode": "active-active", "rules": rules.name}
    config = sandbox.state.folder / "active-active.yaml"
    config.write_text(yaml.safe_dump(settings))
    login = sandbox.client_config(EAST, "admin")
    access = Access(login["bootstrap.servers"], "SASL_PLAINTEXT", login["sasl.mechanism"], "admin", login["sasl.password"])
    cluster = KafkaCluster(EAST, access, None, 20.0)
    for name in ("west.orders", "west.mrc.watermarks.orders"):
        cluster.make_topic_like(name, PARTITIONS, {})
    cluster.close()
    load(sandbox, load_conflicts(rules)[0].rules.hash, events)
    return config


def measure(sandbox: Sandbox, config: Path, events: int) -> dict[str, float]:
    """Let it resolve everything, then restore everything."""
    wanted, until_s = events + PARTITIONS, time.monotonic() + IN_TIME_S
    run = start(sandbox, config, 1)
    try:
        first: tuple[float, int, float] | None = None
        while (counted := run.counted()) != (wanted, 0):
            if first is None and counted[0]:
                first = (time.monotonic(), counted[0], run.used()[0])
            if time.monotonic() > until_s or run.process.poll() is not None:
                raise SystemExit(f"{counted[0]} of {wanted} events were resolved, {counted[1]} are not final; see {run.log}")
            time.sleep(0.2)
        cpu_s, rss_mb = run.used()
        took_s, resolved = (time.monotonic() - first[0], wanted - first[1]) if first else (0.0, 0)
        run.end()
        shutil.rmtree(sandbox.state.folder / "resolver")
        began_s = time.monotonic()
        run = start(sandbox, config, 2)
        while not run.shares():
            if time.monotonic() > until_s or run.process.poll() is not None:
                raise SystemExit(f"the state was not restored; see {run.log}")
            time.sleep(0.05)
        restore_s = time.monotonic() - began_s
        run.end()
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait(60)
    return {
        "mrc_events_per_s": round(resolved / took_s) if took_s else 0,
        "cpu_s_per_million": round((cpu_s - (first[2] if first else 0)) / max(resolved, 1) * 1_000_000, 1),
        "restore_s": round(restore_s, 1),
        "rss_mb": round(rss_mb),
    }


def main() -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    asked = parser.parse_args()
    folder = ROOT / "build" / "bench-resolver"
    sandbox = Sandbox(folder)
    if folder.exists():
        sandbox.down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    try:
        sandbox.up(Options(policy="default"))
        found = measure(sandbox, prepared(sandbox, asked.events), asked.events)
    finally:
        sandbox.down()
    aims = {
        "mrc_events_per_s": found["mrc_events_per_s"] >= AIM_PER_S,
        "restore_s": found["restore_s"] < AIM_RESTORE_S,
        "rss_mb": found["rss_mb"] < AIM_RSS_MB,
    }
    for name, value in found.items():
        print(f"{name:20} {value:>12,} {'' if aims.get(name, True) else 'MISSED'}".rstrip())
    told = {"events": asked.events, "events_per_entity": EVENTS_PER_ENTITY, "mark_every": MARK_EVERY, "partitions": PARTITIONS}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "resolver.json").write_text(
        json.dumps({**found, "missed": [n for n, met in aims.items() if not met], **circumstances(told)}, indent=2) + "\n"
    )
    return 0 if all(aims.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
