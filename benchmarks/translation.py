"""How many records consumer groups would read again: MirrorMaker 2's own checkpoints beside mrc's, in one run on real servers.

Usage: ``python benchmarks/translation.py [--scenario NAME ...] [--json FILE]``. Without --scenario all are run, each in a sandbox
of its own: two Kafka regions, MirrorMaker 2 (checkpoints every second, groups refreshed every second, everything else as shipped) and
mrc's agents. 20 groups commit on 7 partitions; both translators have the time they need; then both logs are read in full and every
answer is judged by the events themselves, which carry ids. Nothing of mrc takes part in the judging.

A missed aim is printed as MISSED; the exit code is 3 then, for a group that skips an event is never acceptable.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from benchmarks.setting import RESULTS, ROOT, circumstances, send
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox

Where = tuple[str, int]
Log = Mapping[Where, Sequence[tuple[int, str]]]
"""Per partition the offsets and event ids of visible records, in offset order."""

GROUPS = 20
RECORDS = 16_000
"""Per partition, before groups commit."""

BEHIND_MAX = 200
LIVE_RATE = 1_000
ABORTED = 0.1
SEED = 20_26
PARAMETERS = {
    "groups": GROUPS,
    "records_per_partition": RECORDS,
    "behind_max": BEHIND_MAX,
    "live_rate_per_s": LIVE_RATE,
    "aborted_share": ABORTED,
    "seed": SEED,
}
PARTITIONS: tuple[Where, ...] = tuple([("orders", p) for p in range(3)] + [("payments", p) for p in range(4)])
READY_S = 120.0
SETTLE_S = 20.0
"""How long MM2 gets to write a checkpoint of each position after mrc has answered for all of them."""


class Scenario(NamedTuple):
    """What the logs are like, and where the groups stand."""

    name: str
    exactly_once: bool = False
    live: bool = False
    transactional: bool = False
    compacted: bool = False
    restart: bool = False


SCENARIOS = (
    Scenario("live", live=True),
    Scenario("random"),
    Scenario("live-exactly-once", exactly_once=True, live=True),
    Scenario("random-exactly-once", exactly_once=True),
    Scenario("transactional", transactional=True),
    Scenario("compacted", compacted=True),
    Scenario("restart-duplicates", restart=True),
)


# ---------------------------------------------------------------- judging (pure)


class Cost(NamedTuple):
    """What a group would meet that goes on at an answered position."""

    reread: int
    skipped: int


class Judge:
    """Knows both logs of one partition by the events in them."""

    def __init__(self, source: Sequence[tuple[int, str]], target: Sequence[tuple[int, str]]) -> None:
        self._at = {event: offset for offset, event in source}
        self._copies = target
        self._last: dict[str, int] = {event: offset for offset, event in target}

    def cost(self, committed: int, answer: int) -> Cost:
        """Count target records at or after ``answer`` with events below ``committed``, and unread events whose copies all lie before."""
        reread = sum(1 for offset, event in self._copies if offset >= answer and self._at.get(event, committed) < committed)
        skipped = sum(1 for event, offset in self._at.items() if offset >= committed and self._last.get(event, answer) < answer)
        return Cost(reread, skipped)


def median(values: Sequence[int]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None


# ---------------------------------------------------------------- one run


class Run:
    """One scenario in one sandbox."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.sandbox = Sandbox(folder)
        self.groups = [f"bench-{number:02d}" for number in range(GROUPS)]
        self._random = random.Random(SEED)
        self._events = 0
        self.ours: dict[tuple[str, Where], dict[str, Any]] = {}
        self.theirs: dict[tuple[str, Where], int] = {}
        self._stop = threading.Event()

    def say(self, text: str) -> None:
        """Tell the user how far it is."""
        print(f"{self.scenario.name}: {text}", file=sys.stderr, flush=True)

    def measure(self) -> dict[str, object]:
        """Return the scenario's row."""
        self.say("starts two regions")
        self.sandbox.up(Options(mm2_exactly_once=self.scenario.exactly_once))
        self._configure()
        self.sandbox.start_agents()
        self.say(f"writes {RECORDS:,} records to each of {len(PARTITIONS)} partitions")
        self._fill()
        with self._traffic() if self.scenario.live else _nothing():
            positions = self._commit()
            self.say("waits for both translators")
            self._until(lambda: self._mrc(positions), READY_S)
            self._within(lambda: self._mm2(positions), SETTLE_S)
        self._until(self._mirrored, READY_S)
        self.say("reads both logs and judges")
        return self._judge(positions)

    # -- the world

    def _client(self, region: str) -> dict[str, str]:
        return dict(self.sandbox.client_config(region, "admin"))

    def _admin(self, region: str) -> AdminClient:
        return AdminClient(dict(self._client(region)))

    def _configure(self) -> None:
        """Let mrc and MM2 look after the benchmark's groups, MM2 at its quickest."""
        path = self.sandbox.config_path
        settings = yaml.safe_load(path.read_text())
        settings["replication_groups"][0]["groups"] = self.groups
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        url = f"{settings['regions']['west']['connect']['url']}/connectors/mrc.orders.east-west.checkpoint/config"
        with urllib.request.urlopen(url, timeout=10) as answer:
            config = json.load(answer)
        config |= {"refresh.groups.interval.seconds": "1", "emit.checkpoints.interval.seconds": "1"}
        send("PUT", url, json.dumps(config).encode())
        if self.scenario.compacted:
            self._compact()

    def _compact(self) -> None:
        entries = {
            "cleanup.policy": "compact",
            "segment.bytes": "1048576",
            "segment.ms": "2000",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "2000",
        }
        admin = self._admin("east")
        for topic in ("orders", "payments"):
            changes = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in entries.items()]
            resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changes)
            for future in admin.incremental_alter_configs([resource], request_timeout=10).values():
                future.result(timeout=15)

    def _event(self, where: Where) -> tuple[bytes, bytes]:
        self._events += 1
        key = self._random.randrange(500) if self.scenario.compacted else self._events
        return f"{where}-{key}".encode(), json.dumps({"id": f"e{self._events}", "pad": "x" * 80}).encode()

    def _fill(self) -> None:
        if self.scenario.transactional:
            self._fill_in_transactions()
            return
        producer = Producer({**self._client("east"), "linger.ms": 5, "enable.idempotence": True})
        for number in range(RECORDS):
            if self.scenario.restart and number >= RECORDS // 2:
                self._disturb(producer, number)
            for where in PARTITIONS:
                self._send(producer, where)
        _flushed(producer)
        if self.scenario.restart:
            self.sandbox.start("west")
        if self.scenario.compacted:
            self._until_compacted(producer)
        self._until(self._mirrored, READY_S)

    def _fill_in_transactions(self) -> None:
        producer = Producer({**self._client("east"), "linger.ms": 5, "transactional.id": "bench"})
        producer.init_transactions(30)
        written = 0
        while written < RECORDS:
            producer.begin_transaction()
            abort = self._random.random() < ABORTED
            batch = min(self._random.randrange(1, 200), RECORDS - written)
            for _ in range(batch):
                for where in PARTITIONS:
                    self._send(producer, where)
            _flushed(producer)
            if abort:
                producer.abort_transaction(30)
            else:
                producer.commit_transaction(30)
                written += batch
        self._until(self._mirrored, READY_S)

    def _send(self, producer: Producer, where: Where) -> None:
        key, value = self._event(where)
        while True:
            try:
                producer.produce(where[0], value, key, where[1])
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)

    def _disturb(self, producer: Producer, number: int) -> None:
        """Let MirrorMaker follow steady traffic, and kill it in the middle of that."""
        if number == RECORDS // 2:
            _flushed(producer)
            self._until(self._mirrored, READY_S)
        elif number == RECORDS * 3 // 4:
            self._kill_connect()
        if number % 100 == 0:
            time.sleep(0.05)

    def _kill_connect(self) -> None:
        """Kill MirrorMaker's worker: what it had copied and not flushed it copies again."""
        self.say("kills MirrorMaker's worker")
        found = next(part for part in self.sandbox.status() if part.part == "west-connect")
        if found.pid is None:
            raise RuntimeError("the worker does not run")
        os.kill(found.pid, 9)

    def _until_compacted(self, producer: Producer) -> None:
        """Wait until the cleaner has taken records away; what is written meanwhile rolls the last segments."""

        def gone() -> bool:
            for where in PARTITIONS:
                self._send(producer, where)
            _flushed(producer)
            log = self._read("east")
            return all(len(records) < RECORDS // 2 for records in log.values())

        self.say("waits for compaction")
        self._until(gone, READY_S, every_s=3.0)

    @contextmanager
    def _traffic(self) -> Iterator[None]:
        producer = Producer({**self._client("east"), "linger.ms": 2, "enable.idempotence": True})

        def write() -> None:
            began_s, sent = time.monotonic(), 0
            while not self._stop.is_set():
                while sent < (time.monotonic() - began_s) * LIVE_RATE:
                    self._send(producer, PARTITIONS[sent % len(PARTITIONS)])
                    sent += 1
                self._stop.wait(0.005)
            _flushed(producer)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            time.sleep(5.0)  # the traffic of which the groups are a little behind
            yield
        finally:
            self._stop.set()
            thread.join(60)

    # -- positions and answers

    def _commit(self) -> dict[str, dict[Where, int]]:
        """Commit every group on every partition, in the live scenarios close behind the head; return the positions."""
        consumer = Consumer({**self._client("east"), "group.id": "bench-look", "enable.auto.commit": False})
        spans = {where: consumer.get_watermark_offsets(TopicPartition(*where), timeout=10) for where in PARTITIONS}
        consumer.close()
        admin = self._admin("east")
        found: dict[str, dict[Where, int]] = {}
        for group in self.groups:
            rows = {}
            for where, (low, high) in spans.items():
                behind = self._random.randrange(BEHIND_MAX + 1)
                rows[where] = max(low, high - behind) if self.scenario.live else self._random.randint(low, high)
            request = ConsumerGroupTopicPartitions(group, [TopicPartition(*where, offset) for where, offset in rows.items()])
            for future in admin.alter_consumer_group_offsets([request], request_timeout=10).values():
                future.result(timeout=15)
            found[group] = rows
        return found

    def _mrc(self, positions: dict[str, dict[Where, int]]) -> bool:
        """Take mrc's answers; return whether there is one for every position."""
        command = [sys.executable, "-m", "mrc", "--config", str(self.sandbox.config_path), "--output", "json", "offsets", "list"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        if done.returncode:
            return False
        found = {}
        for row in json.loads(done.stdout):
            where = (row["topic"], row["partition"])
            if positions.get(row["group"], {}).get(where) == row["source_offset"] and row["translation"]["type"] != "unknown":
                found[row["group"], where] = row
        self.ours = found
        return len(found) == sum(map(len, positions.values()))

    def _mm2(self, positions: dict[str, dict[Where, int]]) -> bool:
        """Take MM2's answers: what its last checkpoint of each group and partition says; return whether all are up to date."""
        found: dict[tuple[str, Where], tuple[int, int]] = {}
        for key, value in self._read_raw("west", "east.checkpoints.internal"):
            if key is None or value is None:
                continue
            group, at = _string(key, 0)
            topic, at = _string(key, at)
            (partition,) = struct.unpack_from(">i", key, at)
            upstream, downstream = struct.unpack_from(">qq", value, 2)
            if group in positions:
                found[group, (topic, partition)] = (upstream, downstream)
        self.theirs = {one: downstream for one, (_, downstream) in found.items()}
        return all(found.get((group, where), (-1, 0))[0] == offset for group, rows in positions.items() for where, offset in rows.items())

    # -- reading

    def _read_raw(self, region: str, topic: str) -> list[tuple[bytes | None, bytes | None]]:
        return [(m_key, m_value) for _, m_key, m_value in _read_all(self._client(region), [(topic, 0)]).get((topic, 0), [])]

    def _read(self, region: str) -> dict[Where, list[tuple[int, str]]]:
        found = _read_all(self._client(region), PARTITIONS)
        return {where: [(offset, json.loads(value or b"{}")["id"]) for offset, _, value in records] for where, records in found.items()}

    def _mirrored(self) -> bool:
        """Whether the target's log ends with the source's last event, everywhere."""
        here, there = (_read_all(self._client(region), PARTITIONS, last=20) for region in ("east", "west"))
        return all(here[w] and there[w] and here[w][-1][2] == there[w][-1][2] for w in PARTITIONS)

    def _within(self, reached: Callable[[], bool], seconds: float, every_s: float = 0.5) -> bool:
        """Poll until ``reached``; return whether it was in time."""
        until_s = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > until_s:
                return False
            time.sleep(every_s)
        return True

    def _until(self, reached: Callable[[], bool], seconds: float, every_s: float = 0.5) -> None:
        if not self._within(reached, seconds, every_s):
            raise RuntimeError(f"{self.scenario.name}: not ready after {seconds:.0f} s")

    # -- judging

    def _judge(self, positions: dict[str, dict[Where, int]]) -> dict[str, object]:
        source, target = self._read("east"), self._read("west")
        judges = {where: Judge(source[where], target[where]) for where in PARTITIONS}
        mm2: list[Cost] = []
        ours: list[Cost] = []
        exact = over_bound = missing = 0
        for group, rows in positions.items():
            for where, committed in rows.items():
                answer = self.ours[group, where]
                cost = judges[where].cost(committed, answer["floor"])
                ours.append(cost)
                translation = answer["translation"]
                exact += translation["type"] == "exact"
                over_bound += cost.reread > (translation["repeats_max"] if translation["type"] == "bounded" else 0)
                if (group, where) in self.theirs:
                    mm2.append(judges[where].cost(committed, self.theirs[group, where]))
                else:
                    missing += 1
        return {
            "mm2_reread_median": median([cost.reread for cost in mm2]),
            "mm2_reread_max": max((cost.reread for cost in mm2), default=None),
            "mm2_skipped": sum(cost.skipped for cost in mm2),
            "mm2_missing": missing,
            "mrc_reread_median": median([cost.reread for cost in ours]),
            "mrc_reread_max": max(cost.reread for cost in ours),
            "mrc_skipped": sum(cost.skipped for cost in ours),
            "mrc_over_its_bound": over_bound,
            "positions": len(ours),
            "exact_share": round(exact / len(ours), 4),
            "records_per_partition": {f"{topic}-{p}": len(source[topic, p]) for topic, p in PARTITIONS},
            "copies_per_partition": {f"{topic}-{p}": len(target[topic, p]) for topic, p in PARTITIONS},
        }


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _flushed(producer: Producer) -> None:
    if producer.flush(60):
        raise RuntimeError("records were not acknowledged within a minute")


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length


def _read_all(
    config: Mapping[str, str], wanted: Iterable[Where], last: int | None = None
) -> dict[Where, list[tuple[int, bytes | None, bytes | None]]]:
    """Return offset, key and value of every visible record, or of about the ``last`` ones, within two minutes."""
    consumer = Consumer(
        {
            **config,
            "group.id": "bench-read",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    found: dict[Where, list[tuple[int, bytes | None, bytes | None]]] = {where: [] for where in wanted}
    try:
        starts = []
        for where in found:
            low, high = consumer.get_watermark_offsets(TopicPartition(*where), timeout=10)
            starts.append(TopicPartition(*where, low if last is None else max(low, high - last)))
        consumer.assign(starts)
        left, until_s = set(found), time.monotonic() + 120
        while left and time.monotonic() < until_s:
            for message in consumer.consume(5_000, 0.2):
                where = (str(message.topic()), int(message.partition() or 0))
                error = message.error()
                if error is None:
                    found[where].append((int(message.offset() or 0), message.key(), message.value()))
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(where)
                else:
                    raise RuntimeError(str(error))
        if left:
            raise RuntimeError(f"could not read {left} to the end")
    finally:
        consumer.close()
    return found


# ---------------------------------------------------------------- aims and the report


def missed(name: str, row: Mapping[str, Any]) -> list[str]:
    """Return the aims that a scenario's row misses."""
    found = [f"mrc_skipped is {row['mrc_skipped']}, the aim is 0"] if row["mrc_skipped"] else []
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
        theirs = f"{row['mm2_reread_median'] or 0:>9,.0f}{row['mm2_reread_max'] or 0:>8,}{row['mm2_skipped']:>8}{row['mm2_missing']:>5}"
        ours = f"{row['mrc_reread_median']:>9,.0f}{row['mrc_reread_max']:>8,}{row['mrc_skipped']:>8}{row['exact_share']:>9.3f}"
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
        theirs = f"{row['mm2_reread_median'] or 0:,.0f} | {row['mm2_reread_max'] or 0:,}"
        ours = f"{row['mrc_reread_median']:,.0f} | {row['mrc_reread_max']:,} | {row['mrc_skipped']} | {row['exact_share']:.1%}"
        lines.append(f"| {name} | {row['positions']} | {theirs} | {ours} |")
    return "\n".join(lines)


def write_into(document: Path, result: Mapping[str, Any]) -> None:
    """Put the table between the markers of a document."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    document.write_text(
        f"{before}{begin}\n{markdown(result)}\n\nCommit {result['commit']}, {result['machine']['cores']} cores.\n{end}{after}"
    )


BEGIN = "<!-- translation benchmark: begin -->"
END = "<!-- translation benchmark: end -->"


def main() -> int:
    """Run the scenarios, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenario", action="append", choices=names, help="one of them; may be given again (all where left out)")
    parser.add_argument("--json", type=Path, default=RESULTS / "translation.json", help="where results go")
    asked = parser.parse_args()
    rows: dict[str, dict[str, object]] = {}
    for scenario in SCENARIOS:
        if asked.scenario and scenario.name not in asked.scenario:
            continue
        folder = Path(tempfile.mkdtemp(prefix="mrc-bench-"))
        run = Run(scenario, folder)
        try:
            rows[scenario.name] = run.measure()
        finally:
            run.sandbox.down(wipe=True)
            shutil.rmtree(folder, ignore_errors=True)
        print(table({scenario.name: rows[scenario.name]}), file=sys.stderr, flush=True)
    print(table(rows))
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    result = {**circumstances(PARAMETERS), "scenarios": rows}
    asked.json.write_text(json.dumps(result, indent=2) + "\n")
    if not asked.scenario:
        write_into(ROOT / "docs" / "offset-translation.md", result)
    return 3 if any(missed(name, row) for name, row in rows.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
