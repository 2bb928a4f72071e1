"""How many events a second one resolver process resolves, exactly once and durably, beside Kafka Streams on the same topics.

One region of a sandbox, its brokers with the JVM's full compiler. Half of the events stand in the region's own topic, half in that of the
other region's copies, with that region's marks (one for each `MARK_EVERY` events of a partition); all are written before anybody
starts, about one entity in ten events, 3 partitions, 150 bytes; one event in ten had not seen the other region's.

*mrc*: one process. Timed is from when the first `WARM` of the events were counted until all are final: read, decided, written to
what stands, to the conflicts and to the changelog in transactions, and to disk. *The peer* (peers/LastWriteWins.java) keeps the last
event of each entity, in a RocksDB store with a changelog, exactly once; timed is from the same event until all are committed. It
runs with each of `PEER_THREADS`, and the better figure counts. *Without headers*: as much of the same, by `detection: watermark`, with both
regions' marks, which list what they seal, as after a new start of east's resolver.

Then the changelog is filled up to `RESTORED` entities, the disk is deleted, and timed is from the start of a process until it has its
share again; it is filled up to `HELD` entities, and some more events are resolved with them: peak resident memory, the kernel's, is of that
process. *The core's merge* is timed in this process. A missed aim is printed as MISSED (exit code 3).
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml
from confluent_kafka import Producer

from benchmarks.setting import RESULTS, ROOT, circumstances
from mrc.adapters.kafka import Access, KafkaCluster
from mrc.config.conflicts import load_conflicts
from mrc.core.conflict.entity import Entity, Rules, note, take
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.headers import Stamp, headers
from mrc.core.conflict.listing import event_id
from mrc.core.conflict.marks import Entry, Knew, Listing, Mark, pack
from mrc.core.conflict.rules import Detection
from mrc.core.conflict.taking import Kept
from mrc.core.model import Offset, Region, encode
from mrc.ports import Arrived
from mrc.resolver.kinds import WATERMARKS
from mrc.resolver.reading import fingerprint
from mrc.resolver.task import ENTITY
from mrc.sandbox import jars
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox

EVENTS = 600_000
WARM = 0.25
EVENTS_PER_ENTITY = 10
MARK_EVERY = 1_000
PARTITIONS = 3
RESTORED = 1_000_000
HELD = 5_000_000
MORE_EVENTS = 30_000
MERGED = 300_000
PEER_THREADS = (1, 2)
EAST, WEST = Region("east"), Region("west")
TYPES = ("Placed", "Cancelled", "Shipped", "Delivered")
PEER = Path(__file__).parent / "peers"
CHANGELOG = "mrc.changelog.orders.internal"
IN_TIME_S = 1_800.0

AIMS = {
    "mrc_events_per_s": (50_000, "at least"),
    "ratio": (2.0, "at least"),
    "core_events_per_s": (300_000, "at least"),
    "restore_s": (20.0, "below"),
    "rss_mb": (500, "below"),
}

PEER_SETTINGS = {
    "processing.guarantee": "exactly_once_v2",
    # A transaction then takes about as many events as one of mrc's; Kafka Streams' default is 100 ms.
    "commit.interval.ms": "500",
    "statestore.cache.max.bytes": str(64 << 20),
    "auto.offset.reset": "earliest",
    "consumer.max.poll.records": "10000",
    "consumer.session.timeout.ms": "10000",
    "producer.compression.type": "lz4",
    "producer.linger.ms": "5",
    "producer.batch.size": str(1 << 20),
    "replication.factor": "1",
}


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

    def require(self, until_s: float, what: str) -> None:
        """Say what was not reached where it has ended, or time is over."""
        if time.monotonic() > until_s or self.process.poll() is not None:
            raise SystemExit(f"{what}; see {self.log}")

    def end(self) -> None:
        """End it, and see that it ended well."""
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            raise SystemExit(f"the resolver failed; see {self.log}")


class Block:
    """What one region has written to one partition since its last mark there."""

    def __init__(self, begin: int = 0, knew: int = 0, clock_ms: int = 0) -> None:
        self.begin = begin
        self.entries: list[Entry] = []
        self.knew, self.clock_ms = knew, clock_ms

    @property
    def end(self) -> int:
        """Return the offset of what comes next."""
        return self.begin + len(self.entries)


class Bench:
    """A sandbox with a configuration, and how much was written there, in one topic with its copies."""

    def __init__(self, sandbox: Sandbox, detection: Detection = "causal") -> None:
        self.sandbox = sandbox
        self.folder = sandbox.state.folder
        self.stamped = detection == "causal"
        self.topic = "orders" if self.stamped else "unstamped"
        self.state = self.folder / f"resolver-{self.topic}"
        self.config, self.rules = self._prepared(detection)
        self.written = 0
        self._choose = random.Random(1)
        self._blocks = {(region, partition): Block() for region in (EAST, WEST) for partition in range(PARTITIONS)}
        self._lives = 0

    def _prepared(self, detection: Detection) -> tuple[Path, Rules]:
        """Make the topics; return the configuration and the rules."""
        rules = self.folder / f"{self.topic}-rules.yaml"
        told = yaml.safe_load((ROOT / "docs" / "examples" / "conflicts.yaml").read_text())
        told["entities"][0] |= {"topics": [self.topic], "detection": detection}
        rules.write_text(yaml.safe_dump(told))
        settings = yaml.safe_load(self.sandbox.config_path.read_text())
        settings["replication_groups"][0] |= {"mode": "active-active", "topics": [self.topic], "rules": rules.name}
        config = self.folder / f"{self.topic}.yaml"
        config.write_text(yaml.safe_dump(settings))
        login = self.sandbox.client_config(EAST, "admin")
        access = Access(login["bootstrap.servers"], "SASL_PLAINTEXT", login["sasl.mechanism"], "admin", login["sasl.password"])
        cluster = KafkaCluster(EAST, access, None, 20.0)
        topics = [self.topic, f"{WATERMARKS}{self.topic}"]
        for name in (*topics, *(f"west.{topic}" for topic in topics), *(f"standing.{threads}" for threads in PEER_THREADS)):
            if not cluster.topics([name]):
                cluster.make_topic_like(name, PARTITIONS, {})
        cluster.close()
        return config, load_conflicts(rules)[0].rules

    def producer(self) -> Producer:
        """Return one that is quick."""
        quick = {"linger.ms": 20, "batch.size": 1 << 20, "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000}
        return Producer({**self.sandbox.client_config(EAST, "admin"), **quick})

    def load(self, events: int) -> None:
        """Write events, with clocks up to now, and the other region's marks.

        A clock that is later than the resolver's own would have to wait for that, and the clocks' speed would be measured.
        """
        producer, begin_ms = self.producer(), int(time.time() * 1000) - events // 10
        for key, event, value in told(self._choose, events, self.written, begin_ms):
            partition = key % PARTITIONS
            self._put(producer, partition, f"order-{key}".encode(), value, event)
            if len(self._blocks[event.origin, partition].entries) == MARK_EVERY:
                self._mark(producer, partition, event, event.hlc.wall_ms - 1)
        self.written += events
        end_ms = begin_ms + events // 10
        for partition in range(PARTITIONS):
            event = EntityEvent("", f"end-{self.written}-{partition}", WEST, self.written + 1, {}, Hlc(end_ms))
            self._put(producer, partition, event.id.encode(), b'{"event": "Placed"}', event)
            self._mark(producer, partition, event, end_ms + 1)  # an event without headers has a counter in its clock, and so is later
        self.written += PARTITIONS
        if producer.flush(300):
            raise SystemExit("the events could not be written")

    def _put(self, producer: Producer, partition: int, key: bytes, value: bytes, event: EntityEvent) -> None:
        at_ms = event.hlc.wall_ms
        topic = self.topic if event.origin == EAST else f"west.{self.topic}"
        stamp = headers(Stamp(event.origin, event.id, {**event.seen, event.origin: event.number}, event.hlc)) if self.stamped else []
        put(producer, topic, partition, key, value, stamp, at_ms)
        block = self._blocks[event.origin, partition]
        found = 0 if self.stamped else fingerprint(Arrived(topic, partition, block.end, key, value, (), at_ms))
        block.entries.append(Entry(block.end, at_ms, found))

    def _mark(self, producer: Producer, partition: int, last: EntityEvent, clock_ms: int) -> None:
        """Write a region's mark behind its last event; with headers the resolver that is measured writes its own."""
        region, block = last.origin, self._blocks[last.origin, partition]
        other = WEST if region == EAST else EAST
        heard = self._blocks[other, partition].end
        self._blocks[region, partition] = Block(block.end, heard, clock_ms)
        if self.stamped and region == EAST:
            return
        knew = (Knew(Offset(block.begin), {other: block.knew}, block.clock_ms),) if block.knew else ()
        listing = None if self.stamped else Listing(Offset(block.begin), clock_ms + MARK_EVERY, pack(block.entries), knew)
        id = last.id if self.stamped else event_id(region, partition, block.end - 1)
        mark = Mark(Offset(block.end), id, clock_ms, clock_ms + 3_600_000, self.rules.hash, listing=listing)
        topic = f"{WATERMARKS}{self.topic}"
        put(producer, topic if region == EAST else f"west.{topic}", partition, b"mark", encode(mark), [])

    def fill(self, begin: int, end: int) -> None:
        """Write the state of entities to the changelog, each with an event of either region, as the resolver writes it."""
        producer, encoder = self.producer(), msgspec.msgpack.Encoder()
        choose = random.Random(2)
        for number in range(begin, end):
            key = f"held-{number}"
            kept = Kept()
            for region in (EAST, WEST):
                id = f"{region}-{number}"
                seen = {WEST if region == EAST else EAST: number}
                type, fields = choose.choice(TYPES), {"amount": number}
                event = EntityEvent(f"order/{key}", id, region, number + 1, seen, Hlc(number), type, fields)
                note(kept.entity, event, self.rules)
                kept.bodies[id] = value_of(event.type, number)
            put(producer, CHANGELOG, number % PARTITIONS, ENTITY + key.encode(), encoder.encode(kept), [])
        if producer.flush(300):
            raise SystemExit("the state could not be written")

    def start(self) -> Run:
        """Start a resolver."""
        self._lives += 1
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            metrics = f"127.0.0.1:{free.getsockname()[1]}"
        log = self.folder / f"resolver-{self.topic}-{self._lives}.log"
        words = ["--config", str(self.config), "resolver", "run", "--region", EAST, "--state", str(self.state)]
        with log.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-m", "mrc", *words, "--metrics", metrics], stdout=file, stderr=file)
        return Run(process, log, metrics)


def told(choose: random.Random, events: int, begin: int, began_ms: int) -> Iterator[tuple[int, EntityEvent, bytes]]:
    """Yield events with the number of their entity and their value; nine in ten have seen everything that came before them."""
    for number in range(begin, begin + events):
        region = choose.choice((EAST, WEST))
        key = choose.randrange(max(1, events // EVENTS_PER_ENTITY))
        seen = {WEST if region == EAST else EAST: number} if choose.random() < 0.9 else {}
        type, amount = choose.choice(TYPES), number % 500
        hlc = Hlc(began_ms + (number - begin) // 10, (number - begin) % 10)
        event = EntityEvent(f"order/order-{key}", f"{region}-{number}", region, number + 1, seen, hlc, type, {"amount": amount})
        yield key, event, value_of(type, amount)


def value_of(type: str, amount: int) -> bytes:
    """Return an event's JSON, about 150 bytes."""
    return json.dumps({"event": type, "amount": amount, "pad": "x" * 100}).encode()


def put(producer: Producer, topic: str, partition: int, key: bytes, value: bytes, stamp: list[tuple[str, bytes]], at_ms: int = 0) -> None:
    """Write a record as soon as there is room for it. ``at_ms``: its timestamp; 0: now."""
    while True:
        try:
            producer.produce(topic, value, key, partition, headers=list(stamp), timestamp=at_ms)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def merged(rules: Rules, events: int) -> int:
    """Return how many events a second of processor time the core's merge takes."""
    made = [(key, event) for key, event, _ in told(random.Random(1), events, 0, 0)]
    entities: dict[int, Entity] = {key: Entity() for key, _ in made}
    began_s = time.process_time()
    for key, event in made:
        take(entities[key], event, rules)
    return round(events / (time.process_time() - began_s))


def resolve(bench: Bench) -> dict[str, float]:
    """Let a resolver take all that was written; return its speed."""
    run, warm, until_s = bench.start(), int(bench.written * WARM), time.monotonic() + IN_TIME_S
    try:
        first: tuple[float, int, float] | None = None
        while (counted := run.counted()) != (bench.written, 0):
            if first is None and counted[0] >= warm:
                first = (time.monotonic(), counted[0], run.used()[0])
            run.require(until_s, f"{counted[0]} of {bench.written} events were resolved, {counted[1]} are not final")
            time.sleep(0.1)
        if first is None:
            raise SystemExit("all events were resolved at once: too few to measure")
        took_s, cpu_s, events = time.monotonic() - first[0], run.used()[0] - first[2], bench.written - first[1]
        run.end()
    finally:
        end_at_once(run.process)
    return {"mrc_events_per_s": round(events / took_s), "mrc_cpu_s_per_million": round(cpu_s / events * 1_000_000, 1)}


def peer(bench: Bench, library: Path, threads: int) -> dict[str, float]:
    """Let Kafka Streams take all that was written; return its speed."""
    name = f"last-write-wins-{threads}"
    login = bench.sandbox.client_config(EAST, "admin")
    settings = {
        **PEER_SETTINGS,
        "application.id": name,
        "state.dir": str(bench.folder / name),
        "num.stream.threads": str(threads),
        "bootstrap.servers": login["bootstrap.servers"],
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": login["sasl.mechanism"],
        "sasl.jaas.config": "org.apache.kafka.common.security."
        + ("plain.PlainLoginModule" if login["sasl.mechanism"] == "PLAIN" else "scram.ScramLoginModule")
        + f' required username="admin" password="{login["sasl.password"]}";',
    }
    file = bench.folder / f"{name}.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    log = bench.folder / f"{name}.log"
    warm = int(bench.written * WARM)
    words = [str(file), str(warm), str(bench.written), "orders", "west.orders", f"standing.{threads}"]
    java = [jars.java(), "-Xmx512m", f"-Dlog4j2.configurationFile={jars.LOGGING}", "-cp", f"{library}/*:{bench.folder / 'classes'}"]
    with log.open("wb") as said:
        process = subprocess.Popen([*java, "LastWriteWins", *words], stdout=subprocess.PIPE, stderr=said)
    try:
        out = process.communicate(timeout=IN_TIME_S)[0].decode()
    finally:
        end_at_once(process)
    if process.returncode != 0:
        raise SystemExit(f"the peer failed; see {log}")
    return peer_figures(out)


def peer_figures(out: str) -> dict[str, float]:
    """Return the peer's speed from what it has printed."""
    said = next((line.split() for line in out.splitlines() if line.startswith("seconds ")), None)
    if said is None:
        raise SystemExit(f"the peer has not said how long it took: {out[:200]!r}")
    _, events, seconds, cpu_s = said
    return {
        "kstreams_events_per_s": round(int(events) / float(seconds)),
        "kstreams_cpu_s_per_million": round(float(cpu_s) / int(events) * 1_000_000, 1),
    }


def compiled(bench: Bench) -> Path:
    """Return the peer's jars, with the peer compiled beside the state."""
    library = jars.fetch(lambda what: print(what, file=sys.stderr), PEER / "pom.xml")
    command = ["javac", "-cp", f"{library}/*", "-d", str(bench.folder / "classes"), str(PEER / "LastWriteWins.java")]
    subprocess.run(command, check=True, timeout=120)
    return library


def hold(bench: Bench) -> dict[str, float]:
    """Let a resolver restore its state, and resolve with much of it; return how long the one took and what the other needs."""
    entities = bench.written // EVENTS_PER_ENTITY
    bench.fill(0, RESTORED - entities)
    shutil.rmtree(bench.state)
    until_s, began_s = time.monotonic() + IN_TIME_S, time.monotonic()
    run = bench.start()
    try:
        while not run.shares():
            run.require(until_s, "the state was not restored")
            time.sleep(0.05)
        restore_s = time.monotonic() - began_s
        run.end()
    finally:
        end_at_once(run.process)
    bench.fill(RESTORED - entities, HELD - entities)
    before = bench.written
    bench.load(MORE_EVENTS)
    run = bench.start()
    try:
        while run.counted() != (bench.written - before, 0):
            run.require(until_s, "what came later was not resolved")
            time.sleep(0.5)
        rss_mb = run.used()[1]
        run.end()
    finally:
        end_at_once(run.process)
    return {"restore_s": round(restore_s, 1), "rss_mb": round(rss_mb)}


def end_at_once(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind, whatever has failed."""
    if process.poll() is None:
        process.kill()
        process.wait(60)


def missed(found: Mapping[str, float]) -> list[str]:
    """Return the names of the figures that miss their aim; a figure that is not there was not asked for."""
    return [
        name for name, (aim, how) in AIMS.items() if name in found and not (found[name] >= aim if how == "at least" else found[name] < aim)
    ]


def compared(mrc: Mapping[str, float], peers: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Return both figures side by side; of the peer's runs the quickest one's."""
    threads, best = max(peers.items(), key=lambda item: item[1]["kstreams_events_per_s"])
    ratio = round(mrc["mrc_events_per_s"] / best["kstreams_events_per_s"], 2)
    return {**mrc, **best, "kstreams_threads": threads, "ratio": ratio}


def main() -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--speed-only", action="store_true", help="leave memory and the restoring of state out, and write no result")
    asked = parser.parse_args()
    # The sandbox starts JVMs with their quick compiler alone, which is right for tests; here brokers are to be what they are in earnest.
    os.environ["_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=4"
    folder = ROOT / "build" / "bench-resolver"
    sandbox = Sandbox(folder)
    if folder.exists():
        sandbox.down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    try:
        sandbox.up(Options(policy="default"))
        bench = Bench(sandbox)
        library = compiled(bench)
        found: dict[str, float] = {"core_events_per_s": merged(bench.rules, MERGED)}
        bench.load(asked.events)
        ours = resolve(bench)
        found |= compared(ours, {threads: peer(bench, library, threads) for threads in PEER_THREADS})
        if not asked.speed_only:
            found |= hold(bench)
        unstamped = Bench(sandbox, "watermark")
        unstamped.load(asked.events)
        found["unstamped_events_per_s"] = resolve(unstamped)["mrc_events_per_s"]
    finally:
        sandbox.down()
    late = missed(found)
    for name, value in found.items():
        print(f"{name:28} {value:>12,} {'MISSED' if name in late else ''}".rstrip())
    if not asked.speed_only:
        parameters = {
            "events": asked.events,
            "warm": WARM,
            "events_per_entity": EVENTS_PER_ENTITY,
            "mark_every": MARK_EVERY,
            "partitions": PARTITIONS,
            "entities_restored": RESTORED,
            "entities_held": HELD,
            "peer": PEER_SETTINGS,
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "resolver.json").write_text(json.dumps({**found, "missed": late, **circumstances(parameters)}, indent=2) + "\n")
    return 3 if late else 0


if __name__ == "__main__":
    sys.exit(main())
