"""How old a checkpoint is: from a commit's acknowledgement in the source to the checkpoint in the target, mrc beside MirrorMaker 2.

Two real regions, MirrorMaker 2 with its checkpoint connector at its quickest (checkpoints and groups every second), and mrc's four
agents. 200 groups commit on 12 partitions every second, each at its own distance behind 5,000 records/s of traffic in the same topic.
A process of its own writes and commits, and notes when each commit was acknowledged; the benchmark's own consumers note when each
record of both checkpoint topics could be read; afterwards both are put side by side. A commit's age is the time until a checkpoint
of its group and partition at or beyond its offset could be read:

  age            mrc's, with an answer for the target (exact or bounded)
  recorded_age   mrc's, with or without an answer: the position itself is safe in the target
  mm2_age        MirrorMaker 2's

A commit without a checkpoint until the end counts with the time that it has waited: its age is at least that. The agent's processor
time (CPU seconds per second) and peak resident memory are the kernel's. A missed aim is printed as MISSED (exit code 3), and so is a
load that this machine could not make.

--memory measures something else: how much memory an agent takes that reads two whole logs from their beginnings (3 partitions, small
records, copied by MirrorMaker 2), and how fast it reads them. The peak must not depend on how long the logs are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from benchmarks.commit_load import COMMIT_EVERY_S, SEED, Ack, group_name, read_acks
from benchmarks.setting import RESULTS, ROOT, circumstances, send
from mrc.config import load
from mrc.control.client import Client
from mrc.core.errors import MrcError
from mrc.core.model import Known
from mrc.core.views import FlowView, PartitionLagView
from mrc.sandbox import processes
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox

TOPIC = "orders"
GROUPS = 200
PARTITIONS = 12
RATE = 5_000
WARM_S = 20.0
AFTER_S = 30.0
"""How long checkpoints are read on after the last commit that counts."""

BEHIND_MAX = 300
LOAD = "bench-load"
AIMS = {"age_p99_ms": 1_000.0, "agent_cpu_share": 1.0, "agent_rss_mb_max": 300.0}
SHORTFALL = 0.95
"""A load below this share of what was wanted is said to be short."""

OTHER_WORK_MAX = 0.1
"""Processor time, in cores, that others may take before the figures are said to be disturbed."""

MEMORY_RECORDS = (1_000_000, 5_000_000)
MEMORY_GROWTH_MAX = 1.10
STALLED_S = 60.0
"""How long a copy or a catch-up may make no progress before the benchmark gives up."""

Key = tuple[str, int]


# ---------------------------------------------------------------- ages (pure)


class Sighting(NamedTuple):
    """A checkpoint that could be read: when, of what, at which source offset, and whether it answers for the target."""

    at_s: float
    key: Key
    offset: int
    answered: bool = True


class Ages(NamedTuple):
    """Milliseconds of each commit; ``missing`` of them have no checkpoint, and are as old as the measuring lasted."""

    ms: list[float]
    missing: int


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that ``share`` of all do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ages(commits: Iterable[Ack], sightings: Iterable[Sighting], end_s: float) -> Ages:
    """Match commits with checkpoints. Sightings are in the order of reading; a checkpoint may be read before its acknowledgement is."""
    times: dict[Key, list[float]] = {}
    offsets: dict[Key, list[int]] = {}
    for seen in sightings:
        reached = offsets.setdefault(seen.key, [])
        if not reached or seen.offset > reached[-1]:
            reached.append(seen.offset)
            times.setdefault(seen.key, []).append(seen.at_s)
    ms: list[float] = []
    missing = 0
    for commit in commits:
        key = (group_name(commit.group), commit.partition)
        at = bisect_left(offsets.get(key, []), commit.offset)
        found = at < len(offsets.get(key, []))
        missing += not found
        ms.append(max(0.0, ((times[key][at] if found else end_s) - commit.at_s) * 1000))
    return Ages(ms, missing)


def ours(at_s: float, key: bytes, value: bytes | None) -> Sighting | None:
    """Return what one of mrc's checkpoints says of the source; None for a deletion."""
    if value is None:
        return None
    group, _, partition = json.loads(key)
    checkpoint = json.loads(value)
    return Sighting(at_s, (group, partition), checkpoint["source_offset"], checkpoint["translation"]["type"] != "unknown")


def theirs(at_s: float, key: bytes, value: bytes | None) -> Sighting | None:
    """Return the same of MirrorMaker's; the format is `org.apache.kafka.connect.mirror.Checkpoint`'s."""
    if value is None:
        return None
    (length,) = struct.unpack_from(">h", key)
    (partition,) = struct.unpack_from(">i", key, len(key) - 4)
    (upstream,) = struct.unpack_from(">q", value, 2)
    return Sighting(at_s, (key[2 : 2 + length].decode(), partition), upstream)


def row(prefix: str, found: Ages) -> dict[str, Any]:
    """Return an age's three figures, and how many commits have no checkpoint."""
    figures = {name: quantile(found.ms, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
    rounded = {f"{prefix}age_{name}_ms": None if value is None else round(value, 1) for name, value in figures.items()}
    return {**rounded, f"{prefix}commits": len(found.ms), f"{prefix}without_checkpoint": found.missing}


def missed(figures: Mapping[str, Any]) -> list[str]:
    """Return the aims that are missed, and what the load fell short of."""
    found = [
        f"{name} is {figures[name]}, the aim is at most {aim:.0f}"
        for name, aim in AIMS.items()
        if figures[name] is None or figures[name] > aim
    ]
    if figures["without_checkpoint"]:
        found.append(f"{figures['without_checkpoint']} of mrc's checkpoints did not come within {AFTER_S:.0f} s")
    if figures["refused_commits"]:
        found.append(f"{figures['refused_commits']} commits were refused by the broker: they count for nothing")
    if figures["other_work_cpu_share"] > OTHER_WORK_MAX:
        found.append(f"the machine was busy with other work: {figures['other_work_cpu_share']} of its {os.cpu_count()} cores")
    for name, wanted in (("records_per_s", RATE), ("commits_per_s", GROUPS * PARTITIONS / COMMIT_EVERY_S)):
        if figures[name] < SHORTFALL * wanted:
            found.append(f"{name} was {figures[name]}, {wanted:.0f} was wanted: this machine could not make the load")
    return found


def growth(sizes: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the peak memory of the longest logs over that of the shortest; None of fewer than two lengths."""
    peaks = [sizes[number]["agent_rss_mb_max"] for number in sorted(sizes, key=int)]
    return round(peaks[-1] / peaks[0], 3) if len(peaks) > 1 else None


# ---------------------------------------------------------------- processes, by the kernel


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has taken so far, in seconds; 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_s() -> float:
    """Return the processor time that everything on this machine has taken so far, in seconds."""
    user, nice, system, _idle, _iowait, *rest = map(int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def rss_mb_max(pid: int) -> float:
    """Return a process's peak resident memory in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


# ---------------------------------------------------------------- the world


class World:
    """A sandbox, the agents' configuration, and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self.sandbox = Sandbox(folder)
        self.folder = folder

    def say(self, text: str) -> None:
        """Tell the user how far it is."""
        print(text, file=sys.stderr, flush=True)

    def configure(self, groups: Sequence[str] | None = None) -> None:
        """Make one topic the replication group's only one, and these groups its groups (None: those it has)."""
        path = self.sandbox.config_path
        settings = yaml.safe_load(path.read_text())
        group = settings["replication_groups"][0]
        group["topics"] = [TOPIC]
        if groups is not None:
            group["groups"] = list(groups)
        path.write_text(yaml.safe_dump(settings, sort_keys=False))

    def until(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Return when it is done. Raises TimeoutError when it is not in time, RuntimeError when the load has ended."""
        until_s = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > until_s:
                raise TimeoutError(f"{what} took more than {timeout_s:.0f} s")
            time.sleep(0.1)

    def leader(self) -> tuple[str, int]:
        """Return the name and the pid of the agent that leads in the target."""
        with Client(load(self.sandbox.config_path)) as client:
            name = client.leader("west").agent
        return name, processes.running(self.sandbox.state.folder)[name].pid

    def wait_for_leader(self) -> tuple[str, int]:
        """Return the same as soon as there is one."""
        found: list[tuple[str, int]] = []

        def leads() -> bool:
            try:
                found.append(self.leader())
            except MrcError:
                return False
            return True

        self.until(leads, 30, "electing a leader")
        return found[0]


class Watch:
    """Reads one of the target's topics from its end on, and keeps each record with the time at which it could be read."""

    def __init__(self, west: Mapping[str, str], topic: str, stop: threading.Event) -> None:
        self.rows: list[tuple[float, bytes, bytes | None]] = []
        self.failure: Exception | None = None
        self._west = west
        self._topic = topic
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name=f"watch {topic}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Return when it has stopped."""
        self._thread.join(30)

    def _run(self) -> None:
        consumer = Consumer({**self._west, "group.id": "bench-watch", "enable.auto.commit": False, "auto.offset.reset": "error"})
        try:
            start = self._begin(consumer)
            consumer.assign([TopicPartition(self._topic, 0, start)])
            while not self._stop.is_set():
                # The driver fills a batch or waits the whole time; so wait for one message and take what is there already.
                messages = consumer.consume(1, 0.2)
                messages += consumer.consume(10_000, 0) if messages else []
                at_s = time.monotonic()
                if error := next((message.error() for message in messages if message.error()), None):
                    self.failure = KafkaException(error)
                    break
                self.rows += [(at_s, message.key() or b"", message.value()) for message in messages]
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            self.failure = error
        finally:
            consumer.close()

    def _begin(self, consumer: Consumer) -> int:
        """Return the topic's end; a topic that is only made with its first checkpoint is read from its beginning."""
        if self._topic not in consumer.list_topics(timeout=10).topics:
            while not self._stop.is_set() and self._topic not in consumer.list_topics(timeout=10).topics:
                self._stop.wait(0.2)
            return 0
        return int(consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=10)[1])


# ---------------------------------------------------------------- ages


class Reading(NamedTuple):
    """What the clocks and counters said at one moment."""

    at_s: float
    records: int
    cpu_s: dict[str, float]
    machine_cpu_s: float


class AgeBench:
    """One run of the ages in one sandbox."""

    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self._sandbox = world.sandbox
        self._seconds = seconds
        self._stop = threading.Event()
        self._acks = world.folder / "acks"
        self._watches: list[Watch] = []

    def run(self) -> dict[str, Any]:
        """Return the figures."""
        world = self._world
        world.say("starts two regions and four agents")
        self._sandbox.up(Options())
        world.configure([group_name(number) for number in range(GROUPS)])
        self._furnish()
        self._sandbox.start_agents()
        west = self._sandbox.client_config("west", "admin")
        self._watches = [Watch(west, topic, self._stop) for topic in ("mrc.checkpoints.east.internal", "east.checkpoints.internal")]
        counter = Consumer({**self._sandbox.client_config("east", "admin"), "group.id": "bench-count"})
        try:
            self._start_load()
            world.say(f"warms up for {WARM_S:.0f} s")
            self._wait(WARM_S)
            agent, pid = world.wait_for_leader()
            before = self._read(counter)
            world.say(f"measures for {self._seconds:.0f} s")
            self._wait(self._seconds)
            after = self._read(counter)
            rss = rss_mb_max(pid)
            if world.leader() != (agent, pid):
                raise RuntimeError(f"{agent} lost the lead while it was measured")
            world.say(f"reads checkpoints for {AFTER_S:.0f} s more")
            self._wait(AFTER_S)
            end_s = time.monotonic()
        finally:
            self._end()
            counter.close()
        return self._figures(agent, before, after, end_s) | {"agent_rss_mb_max": rss}

    def _figures(self, agent: str, before: Reading, after: Reading, end_s: float) -> dict[str, Any]:
        took_s = after.at_s - before.at_s
        acks = [ack for ack in read_acks(self._acks) if before.at_s <= ack.at_s < after.at_s]
        commits = [ack for ack in acks if ack.offset >= 0]
        mrc, mm2 = ([read(*each) for each in watch.rows] for watch, read in zip(self._watches, (ours, theirs), strict=True))
        shares = {part: round((total - before.cpu_s.get(part, 0.0)) / took_s, 3) for part, total in after.cpu_s.items()}
        return {
            **row("", ages(commits, (seen for seen in mrc if seen and seen.answered), end_s)),
            **row("recorded_", ages(commits, (seen for seen in mrc if seen), end_s)),
            **row("mm2_", ages(commits, (seen for seen in mm2 if seen), end_s)),
            "records_per_s": round((after.records - before.records) / took_s),
            "commits_per_s": round(len(commits) / took_s),
            "refused_commits": len(acks) - len(commits),
            "agent_cpu_share": shares[agent],
            "leader": agent,
            "cpu_shares": shares,
            "other_work_cpu_share": round((after.machine_cpu_s - before.machine_cpu_s) / took_s - sum(shares.values()), 3),
        }

    def _furnish(self) -> None:
        """Give the topic its partitions, and make MirrorMaker 2 see them and be quick."""
        for region in ("east", "west"):
            admin = AdminClient(dict(self._sandbox.client_config(region, "admin")))
            for future in admin.create_partitions([NewPartitions(TOPIC, PARTITIONS)]).values():
                future.result(timeout=15)
        url = f"{self._sandbox.layout.connect_url('west')}/connectors"
        checkpoint = f"{url}/mrc.orders.east-west.checkpoint/config"
        with urllib.request.urlopen(checkpoint, timeout=10) as answer:
            config = json.load(answer) | {"refresh.groups.interval.seconds": "1", "emit.checkpoints.interval.seconds": "1"}
        send("PUT", checkpoint, json.dumps(config).encode())
        send("POST", f"{url}/mrc.orders.east-west/restart?includeTasks=true&onlyFailed=false")  # it sees the new partitions then

    def _start_load(self) -> None:
        self._acks.touch()
        options = {"topic": TOPIC, "groups": GROUPS, "partitions": PARTITIONS, "rate": RATE, "behind-max": BEHIND_MAX}
        command = [sys.executable, "-m", "benchmarks.commit_load", f"--state={self._world.folder}", f"--out={self._acks}"]
        command += [f"--{name}={value}" for name, value in options.items()]
        # A process of the sandbox: whatever becomes of this one, taking the sandbox down ends it.
        processes.spawn(self._sandbox.state.folder, LOAD, command, self._sandbox.log_path(LOAD), {"PYTHONPATH": str(ROOT)})

    def _wait(self, seconds: float) -> None:
        """Let the load run. Raises RuntimeError when it, or one of the watches, has ended."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._stop.wait(min(1.0, left_s))
            for watch in self._watches:
                if watch.failure is not None:
                    raise RuntimeError("a checkpoint topic could not be read") from watch.failure
            if LOAD not in processes.running(self._sandbox.state.folder):
                raise RuntimeError(f"the load ended by itself: {self._sandbox.log_path(LOAD).read_text()[-1000:]}")

    def _read(self, counter: Consumer) -> Reading:
        ends = [counter.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[1] for p in range(PARTITIONS)]
        cpu = {part: cpu_s(process.pid) for part, process in processes.running(self._sandbox.state.folder).items()}
        return Reading(time.monotonic(), sum(ends), cpu | {"benchmark": time.process_time()}, machine_cpu_s())

    def _end(self) -> None:
        """End the load with all that it noted, and the watches."""
        processes.end(self._sandbox.state.folder, [LOAD], grace_s=15)
        self._stop.set()
        for watch in self._watches:
            watch.join()


# ---------------------------------------------------------------- memory


class MemoryBench:
    """One catch-up of one agent in one sandbox."""

    def __init__(self, world: World, records: int) -> None:
        self._world = world
        self._sandbox = world.sandbox
        self._records = records

    def run(self) -> dict[str, Any]:
        """Return the figures."""
        world = self._world
        world.say(f"{self._records:,} records: starts two regions")
        self._sandbox.up(Options())
        world.configure()
        self._fill()
        self._copied()
        world.say("  both logs are whole; starts an agent")
        began_s = time.monotonic()
        self._sandbox.start_agent("west-a")
        _, pid = world.wait_for_leader()
        rate, ended_s = self._caught_up()
        figures = {
            "agent_rss_mb_max": rss_mb_max(pid),
            "records_per_s": round(rate),
            "seconds": round(ended_s - began_s, 1),
            "cpu_s": round(cpu_s(pid), 1),
        }
        world.say(f"  {figures}")
        return figures

    def _fill(self) -> None:
        """Write the records, small and all different, to the topic's three partitions in turn."""
        self._world.say("  writes them")
        failures: list[object] = []

        def written(error: object, _message: object) -> None:
            if error is not None:
                failures.append(error)

        settings = {"linger.ms": 20, "queue.buffering.max.messages": 200_000}
        producer = Producer({**self._sandbox.client_config("east", "admin"), **settings})
        for number in range(self._records):
            while True:
                try:
                    producer.produce(TOPIC, b"value-%d" % number, b"%d" % number, number % 3, on_delivery=written)
                    break
                except BufferError:
                    producer.poll(0.05)
            if number % 1_000 == 0:
                producer.poll(0)
            if failures:
                break
        left = producer.flush(60)
        if failures or left:
            raise RuntimeError(f"{left} records are not written; {failures[:1]}")

    def _copied(self) -> None:
        """Wait until MirrorMaker 2 has copied all of them."""
        self._world.say("  waits for the copies")
        consumer = Consumer({**self._sandbox.client_config("west", "admin"), "group.id": "bench-count"})
        try:
            for _ in self._rising(
                lambda: sum(consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[1] for p in range(3)), 0.5
            ):
                pass
        finally:
            consumer.close()

    def _caught_up(self) -> tuple[float, float]:
        """Wait until the agent has paired all; return how many records of both logs it read per second, and when it had."""
        with Client(load(self._sandbox.config_path)) as client:
            steps = [(at_s, paired) for at_s, paired in self._rising(lambda: self._paired(client), 0.25) if paired]
        (first_s, first), (last_s, last) = steps[0], steps[-1]
        return 2 * (last - first) / max(0.001, last_s - first_s), last_s

    @staticmethod
    def _paired(client: Client) -> int:
        """Return how many records of the source have their counterparts by the agent's map."""
        try:
            flows: tuple[FlowView, ...] = client.ask_leader("west", "Lag", replication_group="orders")
        except MrcError:
            return 0
        lags: list[PartitionLagView] = [lag for flow in flows for lag in flow.partitions]
        return sum(int(lag.replicated.value) for lag in lags if isinstance(lag.replicated, Known))

    def _rising(self, read: Callable[[], int], every_s: float) -> Iterator[tuple[float, int]]:
        """Yield a count with its time until it has reached the records; raises TimeoutError when it does not rise any more."""
        last, risen_s = -1, time.monotonic()
        while last < self._records:
            now_s = time.monotonic()
            count = read()
            if count > last:
                last, risen_s = count, now_s
            if now_s - risen_s > STALLED_S:
                raise TimeoutError(f"{count:,} of {self._records:,} records, and no more for {STALLED_S:.0f} s")
            yield now_s, count
            if count < self._records:
                time.sleep(every_s)


# ---------------------------------------------------------------- the command


@contextmanager
def world() -> Iterator[World]:
    """Give a world in a folder of its own; nothing of it is left afterwards, also after Ctrl-C or SIGTERM."""
    folder = Path(tempfile.mkdtemp(prefix="mrc-bench-"))
    made = World(folder)
    try:
        yield made
    finally:
        # Whoever is impatient now would leave servers behind.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        made.say("takes the sandbox down")
        made.sandbox.down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def measure_ages(seconds: float, kept: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the results, with what was kept of memory, and what was missed."""
    with world() as one:
        figures = AgeBench(one, seconds).run()
    for name, value in figures.items():
        print(f"{name:<32}{value}")
    parameters = {
        "groups": GROUPS,
        "partitions": PARTITIONS,
        "records_per_s": RATE,
        "commit_every_s": COMMIT_EVERY_S,
        "behind_max": BEHIND_MAX,
        "warm_s": WARM_S,
        "seconds": seconds,
        "after_s": AFTER_S,
        "seed": SEED,
    }
    memory = {"memory": kept["memory"]} if "memory" in kept else {}
    return {**circumstances(parameters), **figures, **memory}, missed(figures)


def measure_memory(lengths: Sequence[int], kept: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what was kept with the figures of these lengths in it, and what was missed."""
    sizes: dict[str, Any] = dict(kept.get("memory", {}).get("records", {}))
    for records in lengths:
        with world() as one:
            figures = MemoryBench(one, records).run()
        sizes[str(records)] = {**figures, "commit": circumstances({})["commit"]}
    grown = growth(sizes)
    for length in sorted(sizes, key=int):
        print(f"{int(length):>12,} records  {sizes[length]}")
    print(f"growth of the peak: {grown if grown is not None else 'one length only'}")
    wrong = [f"memory grows by {grown}, the aim is at most {MEMORY_GROWTH_MAX}"] if grown is not None and grown > MEMORY_GROWTH_MAX else []
    return {**kept, "memory": {"records": sizes, "growth": grown}}, wrong


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    examples = """examples:
  python -m benchmarks.capture                     the ages; about two and a half minutes
  python -m benchmarks.capture --seconds 300       the same for longer
  python -m benchmarks.capture --memory            1 M and 5 M records; about six minutes
  python -m benchmarks.capture --memory 1000000    one length; figures of others stay in the results

Needs Java and the sandbox's jars (`make setup`), two cores and 3 GB of memory. Ctrl-C ends everything that was started."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capture", description=__doc__, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the ages are measured (default 60)")
    parser.add_argument("--memory", type=int, nargs="*", metavar="RECORDS", help="measure the memory of a catch-up, and nothing else")
    parser.add_argument("--json", type=Path, default=RESULTS / "capture.json", help="where results go (default %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Run, print, write."""
    asked = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kept = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    if asked.memory is None:
        results, wrong = measure_ages(asked.seconds, kept)
    else:
        results, wrong = measure_memory(asked.memory or MEMORY_RECORDS, kept)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(results, indent=2) + "\n")
    print("\n".join(f"MISSED: {words}" for words in wrong) or "all aims are met")
    return 3 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
