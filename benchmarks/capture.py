"""How old a checkpoint is: from a commit's acknowledgement in the source to the checkpoint in the target, mrc beside MirrorMaker 2.

Usage: ``python benchmarks/capture.py [--seconds 60] [--json FILE]``. Two real regions, MirrorMaker 2 with its checkpoint connector at its
quickest (checkpoints and groups every second), mrc's agents in the target's region. 200 groups commit on 12 partitions every second, each
at its own distance behind 5,000 records/s of traffic. The ages are taken by the benchmark's own consumers of both checkpoint
topics; the agent's processor time and peak memory by the operating system. A missed aim is printed as MISSED (exit code 3), and so is a
load that this machine could not make.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from benchmarks.setting import RESULTS, circumstances, send
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox

TOPIC = "orders"
GROUPS = 200
PARTITIONS = 12
RATE = 5_000
COMMIT_EVERY_S = 1.0
WARM_S = 20.0
BEHIND_MAX = 300
SEED = 7
AIMS = {"age_p99_ms": 1_000.0, "agent_cpu_share": 1.0, "agent_rss_mb_max": 300.0}

Key = tuple[str, int]


def quantile(values: list[float], share: float) -> float | None:
    """Return the smallest value that ``share`` of all do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Ages:
    """Commits that wait for their checkpoint, and the ages of those that have it. Safe for two threads."""

    def __init__(self) -> None:
        self._waiting: dict[Key, list[tuple[int, float]]] = {}
        self._lock = threading.Lock()
        self.ms: list[float] = []

    def committed(self, key: Key, offset: int, at_s: float) -> None:
        """Note that a position was acknowledged."""
        with self._lock:
            self._waiting.setdefault(key, []).append((offset, at_s))

    def seen(self, key: Key, offset: int, at_s: float) -> None:
        """Note that a checkpoint at or beyond ``offset`` can be read: every commit up to there has its checkpoint."""
        with self._lock:
            waiting = self._waiting.get(key, [])
            self.ms += [max(0.0, (at_s - since_s) * 1000) for position, since_s in waiting if position <= offset]
            self._waiting[key] = [one for one in waiting if one[0] > offset]

    def left(self) -> int:
        """Return how many commits have no checkpoint yet."""
        with self._lock:
            return sum(map(len, self._waiting.values()))


def ours(message: Message) -> tuple[Key, int] | None:
    """Return what one of mrc's checkpoints says of the source; None where it has no answer for the target yet."""
    if message.value() is None:
        return None
    group, topic, partition = json.loads(message.key() or b"[]")
    checkpoint = json.loads(message.value() or b"{}")
    answered = topic == TOPIC and checkpoint["translation"]["type"] != "unknown"
    return ((group, partition), checkpoint["source_offset"]) if answered else None


def theirs(message: Message) -> tuple[Key, int] | None:
    """Return the same of MirrorMaker's; the format is `org.apache.kafka.connect.mirror.Checkpoint`'s."""
    key, value = message.key() or b"", message.value() or b""
    (length,) = struct.unpack_from(">h", key)
    group = key[2 : 2 + length].decode()
    (partition,) = struct.unpack_from(">i", key, len(key) - 4)
    (upstream,) = struct.unpack_from(">q", value, 2)
    return (group, partition), upstream


class Bench:
    """One run in one sandbox."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.sandbox = Sandbox(folder)
        self.seconds = seconds
        self.groups = [f"bench-{number:03d}" for number in range(GROUPS)]
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._ends = dict.fromkeys(range(PARTITIONS), 0)
        self._acked = self._commits = 0
        self._ages = (Ages(), Ages())
        self._measuring = False

    def say(self, text: str) -> None:
        """Tell the user how far it is."""
        print(text, file=sys.stderr, flush=True)

    def run(self) -> dict[str, Any]:
        """Return the figures."""
        self.say("starts two regions")
        self.sandbox.up(Options())
        self._configure()
        self.sandbox.start_agents("west")
        threads = [
            self._thread(self._produce),
            self._thread(self._commit),
            self._thread(lambda: self._follow("mrc.checkpoints.east.internal", ours, self._ages[0])),
            self._thread(lambda: self._follow("east.checkpoints.internal", theirs, self._ages[1])),
        ]
        try:
            self.say(f"warms up for {WARM_S:.0f} s")
            self._wait(WARM_S)
            agent = self._leader()
            before = (self._acked, self._commits, self._cpu_s(agent), time.monotonic())
            self._measuring = True
            self.say(f"measures for {self.seconds:.0f} s")
            self._wait(self.seconds)
            self._measuring = False
            took_s = time.monotonic() - before[3]
            figures = {
                "records_per_s": round((self._acked - before[0]) / took_s),
                "commits_per_s": round((self._commits - before[1]) / took_s),
                "agent_cpu_share": round((self._cpu_s(agent) - before[2]) / took_s, 3),
                "agent_rss_mb_max": self._rss_mb_max(agent),
            }
            self._wait(10.0)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(30)
        return {**self._quantiles("", self._ages[0]), **self._quantiles("mm2_", self._ages[1]), **figures}

    @staticmethod
    def _quantiles(prefix: str, ages: Ages) -> dict[str, Any]:
        row: dict[str, Any] = {
            f"{prefix}age_{name}_ms": quantile(ages.ms, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        }
        rounded = {name: None if value is None else round(value, 1) for name, value in row.items()}
        return {**rounded, f"{prefix}checkpoints": len(ages.ms), f"{prefix}without_checkpoint": ages.left()}

    # -- the world

    def _configure(self) -> None:
        path = self.sandbox.config_path
        settings = yaml.safe_load(path.read_text())
        settings["replication_groups"][0] |= {"groups": self.groups, "topics": [TOPIC]}
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        for region in ("east", "west"):
            admin = AdminClient(dict(self.sandbox.client_config(region, "admin")))
            for future in admin.create_partitions([NewPartitions(TOPIC, PARTITIONS)]).values():
                future.result(timeout=15)
        url = f"{settings['regions']['west']['connect']['url']}/connectors"
        checkpoint = f"{url}/mrc.orders.east-west.checkpoint/config"
        with urllib.request.urlopen(checkpoint, timeout=10) as answer:
            config = json.load(answer) | {"refresh.groups.interval.seconds": "1", "emit.checkpoints.interval.seconds": "1"}
        send("PUT", checkpoint, json.dumps(config).encode())
        send("POST", f"{url}/mrc.orders.east-west/restart?includeTasks=true&onlyFailed=false")  # it sees the new partitions then

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                self._failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            if self._failures:
                raise self._failures[0]
            self._stop.wait(0.2)

    def _produce(self) -> None:
        producer = Producer({**self.sandbox.client_config("east", "admin"), "linger.ms": 5, "enable.idempotence": True})

        def acked(error: object, message: Message) -> None:
            if error is None:
                self._acked += 1
                self._ends[message.partition() or 0] = (message.offset() or 0) + 1

        began_s, sent = time.monotonic(), 0
        while not self._stop.is_set():
            while sent < (time.monotonic() - began_s) * RATE:
                producer.produce(TOPIC, b"x" * 100, str(sent).encode(), sent % PARTITIONS, on_delivery=acked)
                sent += 1
                if sent % 100 == 0:
                    producer.poll(0)
            producer.poll(0.005)
        producer.flush(10)

    def _commit(self) -> None:
        """Commit each group once a second, spread over the second, never backwards."""
        admin = AdminClient(dict(self.sandbox.client_config("east", "admin")))
        choose = random.Random(SEED)
        behind = {group: [choose.randrange(BEHIND_MAX) for _ in range(PARTITIONS)] for group in self.groups}
        committed: dict[Key, int] = {}
        pending: list[tuple[str, dict[int, int], Future[Any]]] = []
        turn = 0
        began_s = time.monotonic()
        while not self._stop.is_set():
            due_s = began_s + turn * COMMIT_EVERY_S / GROUPS
            pending = [one for one in pending if not self._settled(*one)]
            if time.monotonic() < due_s:
                self._stop.wait(min(0.002, due_s - time.monotonic()))
                continue
            group = self.groups[turn % GROUPS]
            turn += 1
            rows = {p: max(0, self._ends[p] - behind[group][p]) for p in range(PARTITIONS)}
            rows = {p: offset for p, offset in rows.items() if offset > committed.get((group, p), -1)}
            if rows:
                committed |= {(group, p): offset for p, offset in rows.items()}
                request = ConsumerGroupTopicPartitions(group, [TopicPartition(TOPIC, p, offset) for p, offset in rows.items()])
                pending.append((group, rows, admin.alter_consumer_group_offsets([request], request_timeout=10)[group]))

    def _settled(self, group: str, rows: Mapping[int, int], future: Future[Any]) -> bool:
        if not future.done():
            return False
        future.result()
        at_s = time.monotonic()
        self._commits += len(rows)
        if self._measuring:
            for partition, offset in rows.items():
                for ages in self._ages:
                    ages.committed((group, partition), offset, at_s)
        return True

    def _follow(self, topic: str, read: Callable[[Message], tuple[Key, int] | None], ages: Ages) -> None:
        config = {
            **self.sandbox.client_config("west", "admin"),
            "group.id": "bench-follow",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
        consumer = Consumer({**config, "auto.offset.reset": "latest"})
        while not self._stop.is_set():  # the topic is made with the first checkpoint
            try:
                _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=5)
                break
            except KafkaException:
                self._stop.wait(0.5)
        consumer.assign([TopicPartition(topic, 0, high)])
        while not self._stop.is_set():
            messages = consumer.consume(5_000, 0.02)
            at_s = time.monotonic()
            for message in messages:
                if message.error() is None and (found := read(message)) is not None:
                    ages.seen(*found, at_s)
        consumer.close()

    # -- the agent, by the operating system

    def _leader(self) -> int:
        """Return the pid of the target's agent that works; the other one only stands by."""
        pids = [part.pid for part in self.sandbox.status() if part.part in ("west-a", "west-b") and part.pid]
        return max(pids, key=self._cpu_s)

    @staticmethod
    def _cpu_s(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _rss_mb_max(pid: int) -> float:
        line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)


def missed(figures: Mapping[str, Any]) -> list[str]:
    """Return the aims that are missed, and what the load fell short of."""
    found = [f"{name} is {figures[name]}, the aim is at most {aim:.0f}" for name, aim in AIMS.items() if not (figures[name] or 0) <= aim]
    if not figures["checkpoints"] or figures["without_checkpoint"]:
        found.append(f"{figures['without_checkpoint']} of mrc's checkpoints never came")
    for name, wanted in (("records_per_s", RATE), ("commits_per_s", GROUPS * PARTITIONS / COMMIT_EVERY_S)):
        if figures[name] < 0.95 * wanted:
            found.append(f"{name} was {figures[name]}, {wanted:.0f} was wanted: this machine could not make the load")
    return found


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure (default 60)")
    parser.add_argument("--json", type=Path, default=RESULTS / "capture.json", help="where results go")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mrc-bench-"))
    bench = Bench(folder, asked.seconds)
    try:
        figures = bench.run()
    finally:
        bench.sandbox.down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in figures.items():
        print(f"{name:<24}{value}")
    for words in missed(figures):
        print(f"MISSED: {words}")
    parameters = {
        "groups": GROUPS,
        "partitions": PARTITIONS,
        "records_per_s": RATE,
        "commit_every_s": COMMIT_EVERY_S,
        "behind_max": BEHIND_MAX,
        "warm_s": WARM_S,
        "seconds": asked.seconds,
        "seed": SEED,
    }
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps({**circumstances(parameters), **figures}, indent=2) + "\n")
    return 3 if missed(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
