"""How many records consumer groups would read again: MirrorMaker 2's own checkpoints beside mrc's, in one run on real servers.

Each scenario has a sandbox of its own: two Kafka regions, MirrorMaker 2 (checkpoints every second, groups looked for every second,
everything else as shipped) and mrc's agents. 20 groups commit on 7 partitions; both translators have the time they need; then both
logs are read in full and every answer is judged by the events themselves, which carry ids. Nothing of mrc takes part in the judging.

  live                 groups follow running traffic, 0 to 200 records behind
  random               groups commit anywhere in partitions of 16,000 records
  ...-exactly-once     the same with an exactly-once MirrorMaker
  transactional        the source is written in transactions, of which a tenth is aborted
  compacted            the source is compacted before MirrorMaker copies it, and both sides while it does
  restart-duplicates   MirrorMaker's worker is killed under load, without exactly-once, and copies again

A missed aim is printed as MISSED: an answer that skips, or repeats more than it says, or is not exact, is wrong on any machine.

Exit codes: 0 all aims met, 1 a scenario could not be measured, 3 an aim was missed, 130 interrupted.

Examples:
  python -m benchmarks.translation
  python -m benchmarks.translation --scenario live --scenario random --json live.json
  python -m benchmarks.translation --redraw
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import yaml
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, OffsetSpec, ResourceType

from benchmarks.setting import RESULTS, ROOT, circumstances, send
from benchmarks.translation_oracle import Cost as Cost
from benchmarks.translation_oracle import Entry, Raw, Where, decode_checkpoint, events, median, read_all, without_record
from benchmarks.translation_oracle import Judge as Judge
from benchmarks.translation_report import earlier, merged, write_into
from benchmarks.translation_report import missed as missed
from benchmarks.translation_report import table as table
from mrc.core.errors import MrcError
from mrc.sandbox import processes
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox

GROUPS = 20
RECORDS = 16_000
"""Per partition, before groups commit."""

FILL_RATE = 10_000
BEHIND_MAX = 200
LIVE_RATE = 1_000
LEAD_S = 5.0
FOLLOW_S = 15.0
"""How long the groups of a live scenario commit, once a second, before their last commit is judged."""

ABORTED = 0.1
COMPACTED_KEYS = 4_000
KILLS = (RECORDS * 5 // 8, RECORDS * 7 // 8)
"""After how many records of each partition MirrorMaker's worker is killed."""

PINNED = 5
"""How many groups commit right before each kill, and stay there."""

PINNED_BEHIND_MAX = 2_000
SEED = 20_26
PARTITIONS: tuple[Where, ...] = tuple([("orders", p) for p in range(3)] + [("payments", p) for p in range(4)])
PARAMETERS = {
    "groups": GROUPS,
    "partitions": len(PARTITIONS),
    "records_per_partition": RECORDS,
    "fill_rate_per_s": FILL_RATE,
    "behind_max": BEHIND_MAX,
    "live_rate_per_s": LIVE_RATE,
    "follow_s": FOLLOW_S,
    "aborted_share": ABORTED,
    "compacted_keys": COMPACTED_KEYS,
    "kills_at": KILLS,
    "pinned_per_kill": PINNED,
    "pinned_behind_max": PINNED_BEHIND_MAX,
    "seed": SEED,
}
READY_S = 120.0
SETTLE_S = 20.0
"""How long MM2 gets to write a checkpoint of each position after mrc has answered for all of them."""

QUIET_S = 6.0
"""How long both answers must have stood still: MM2 emits every second, mrc looks at its answers again every five."""

CONNECTOR = "mrc.orders.east-west"

Key = tuple[str, Where]
Positions = Mapping[Key, int]


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


class NotMeasured(Exception):
    """The scenario did not come about: a server was too slow, or what it is named after did not happen."""


class Run:
    """One scenario in one sandbox."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.sandbox = Sandbox(folder)
        self.groups = [f"bench-{number:02d}" for number in range(GROUPS)]
        self._random = random.Random(SEED)
        self._events = 0
        self._aborted = 0
        self._written: dict[Where, dict[str, int]] = {where: {} for where in PARTITIONS}
        self._refused: list[str] = []
        self._admins: dict[str, AdminClient] = {}
        self._said = ""
        self._positions: dict[Key, int] = {}
        self.ours: dict[Key, dict[str, Any]] = {}
        self.theirs: dict[Key, int] = {}

    def say(self, text: str) -> None:
        """Tell the user how far it is."""
        print(f"{self.scenario.name}: {text}", file=sys.stderr, flush=True)

    def measure(self) -> dict[str, Any]:
        """Return the scenario's row. Raises NotMeasured, MrcError or KafkaException."""
        began_s = time.monotonic()
        self.say("starts two regions")
        self.sandbox.up(Options(mm2_exactly_once=self.scenario.exactly_once))
        self._configure()
        if self.scenario.compacted:
            self._begin_compacted()
        self.sandbox.start_agents()
        self._fill()
        with self._traffic() if self.scenario.live else nullcontext():
            self._place_groups()
            self.say("waits for both translators")
            self._settle()
        self._until(self._mirrored, READY_S, "MirrorMaker has copied everything")
        self.say("reads both logs and judges")
        return {**self._judge(), "took_s": round(time.monotonic() - began_s)}

    # -- the world

    def _client(self, region: str) -> dict[str, str]:
        return dict(self.sandbox.client_config(region, "admin"))

    def _admin(self, region: str) -> AdminClient:
        if region not in self._admins:
            # Its lost connections, to a region that is taken down at last, are nobody's business.
            self._admins[region] = AdminClient({**self._client(region), "log_level": "0"})
        return self._admins[region]

    def _spans(self) -> dict[Where, tuple[int, int]]:
        """Return where the source's logs begin and end."""
        found = []
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
            asked = self._admin("east").list_offsets({TopicPartition(*where): spec for where in PARTITIONS}, request_timeout=10)
            found.append({(tp.topic, tp.partition): future.result(timeout=15).offset for tp, future in asked.items()})
        return {where: (found[0][where], found[1][where]) for where in PARTITIONS}

    def _producer(self, **more: str) -> Producer:
        return Producer({**self._client("east"), "linger.ms": 5, "enable.idempotence": True, **more})

    def _connector(self, name: str, verb: str) -> str:
        return f"{self.sandbox.layout.connect_url('west')}/connectors/{name}/{verb}"

    def _configure(self) -> None:
        """Let mrc and MM2 look after the benchmark's groups, MM2 at its quickest."""
        path = self.sandbox.config_path
        settings = yaml.safe_load(path.read_text())
        settings["replication_groups"][0]["groups"] = self.groups
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        url = self._connector(f"{CONNECTOR}.checkpoint", "config")
        with urllib.request.urlopen(url, timeout=10) as answer:
            config = json.load(answer)
        config |= {"refresh.groups.interval.seconds": "1", "emit.checkpoints.interval.seconds": "1"}
        send("PUT", url, json.dumps(config).encode())

    def _begin_compacted(self) -> None:
        """Write half of the log while MirrorMaker stands still, and let it copy what compaction has left of that."""
        for region in ("east", "west"):
            self._compact(region)  # MirrorMaker copies a topic's settings too
        send("PUT", self._connector(CONNECTOR, "stop"))
        self._until(self._stopped, READY_S, "MirrorMaker has stopped")
        producer = self._producer()
        self._write(producer, range(RECORDS // 2))
        self._until_compacted(producer)
        send("PUT", self._connector(CONNECTOR, "resume"))

    def _stopped(self) -> bool:
        try:
            with urllib.request.urlopen(self._connector(CONNECTOR, "status"), timeout=10) as answer:
                return not json.load(answer)["tasks"]
        except urllib.error.HTTPError:
            return False  # a worker that is just rebalancing does not know the connector

    def _compact(self, region: str) -> None:
        entries = {
            "cleanup.policy": "compact",
            "segment.bytes": "1048576",
            "segment.ms": "2000",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "2000",
        }
        changed = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=_set(entries)) for topic in ("orders", "payments")]
        # The cleaner looks for work this often; every fifteen seconds where nothing is said.
        changed.append(ConfigResource(ResourceType.BROKER, "1", incremental_configs=_set({"log.cleaner.backoff.ms": "1000"})))
        for future in self._admin(region).incremental_alter_configs(changed, request_timeout=10).values():
            future.result(timeout=15)

    def _until_compacted(self, producer: Producer) -> None:
        """Wait until the cleaner has taken most records away; what is written meanwhile rolls the last segments."""

        def gone() -> bool:
            for where in PARTITIONS:
                self._send(producer, where)
            _flushed(producer)
            return all(without_record(log) > len(log) / 2 for log in self._read("east").values())

        self.say("waits for compaction")
        self._until(gone, READY_S, "compaction has removed records of every partition", every_s=3.0)

    # -- writing

    def _fill(self) -> None:
        producer = self._producer()
        if self.scenario.transactional:
            self._fill_in_transactions()
        elif self.scenario.compacted:
            self._write(producer, range(RECORDS // 2, RECORDS))
            self._until_compacted(producer)
        elif self.scenario.restart:
            for begin, end in zip((0, *KILLS), (*KILLS, RECORDS), strict=True):
                if begin:
                    self._kill_connect(self.groups[: PINNED * (KILLS.index(begin) + 1)])
                self._write(producer, range(begin, end))
        else:
            self._write(producer, range(RECORDS))
        _flushed(producer)
        self._until(self._mirrored, READY_S, "MirrorMaker has copied everything")

    def _write(self, producer: Producer, numbers: range) -> None:
        """Write as many records to every partition, at `FILL_RATE` in all."""
        self.say(f"writes {len(numbers):,} records to each of {len(PARTITIONS)} partitions")
        began_s = time.monotonic()
        for done, _ in enumerate(numbers):
            for where in PARTITIONS:
                self._send(producer, where)
            ahead_s = done * len(PARTITIONS) / FILL_RATE - (time.monotonic() - began_s)
            if ahead_s > 0.01:
                time.sleep(ahead_s)

    def _fill_in_transactions(self) -> None:
        self.say(f"writes {RECORDS:,} records to each of {len(PARTITIONS)} partitions, in transactions")
        producer = self._producer(**{"transactional.id": "bench"})
        producer.init_transactions(30)
        written = 0
        while written < RECORDS:
            producer.begin_transaction()
            aborts = self._random.random() < ABORTED
            batch = min(self._random.randrange(1, 200), RECORDS - written)
            for _ in range(batch):
                for where in PARTITIONS:
                    self._send(producer, where)
            # An abort would throw away what has not been sent yet: the records are to stand in the log.
            _flushed(producer)
            if aborts:
                producer.abort_transaction(30)
                self._aborted += 1
            else:
                producer.commit_transaction(30)
                written += batch

    def _send(self, producer: Producer, where: Where) -> None:
        self._events += 1
        key = self._random.randrange(COMPACTED_KEYS) if self.scenario.compacted else self._events
        event = f"e{self._events}"
        value = json.dumps({"id": event, "pad": "x" * 80})
        while True:
            try:
                producer.produce(where[0], value, f"{where}-{key}", where[1], on_delivery=partial(self._acknowledged, where, event))
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)

    def _acknowledged(self, where: Where, event: str, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is not None or offset is None or offset < 0:
            self._refused.append(f"{event} to {where}: {error or 'no offset'}")
        else:
            self._written[where][event] = offset

    def _kill_connect(self, pinned: Sequence[str]) -> None:
        """Kill MirrorMaker's worker: what it had copied and not flushed it copies again, when it is back."""
        self._commit([group for group in pinned if (group, PARTITIONS[0]) not in self._positions], PINNED_BEHIND_MAX)
        self.say("kills MirrorMaker's worker")
        if not processes.end(self.sandbox.state.folder, ["west-connect"], grace_s=0):
            raise NotMeasured("the worker does not run")
        self.sandbox.start("west")
        self._until(self._mirrored, READY_S, "MirrorMaker has copied everything")

    @contextmanager
    def _traffic(self) -> Iterator[None]:
        """Write on at `LIVE_RATE` for as long as it lasts."""
        producer = self._producer()
        stop = threading.Event()
        failures: list[Exception] = []

        def write() -> None:
            began_s, sent = time.monotonic(), 0
            try:
                while not stop.is_set():
                    while sent < (time.monotonic() - began_s) * LIVE_RATE:
                        self._send(producer, PARTITIONS[sent % len(PARTITIONS)])
                        sent += 1
                    stop.wait(0.005)
                _flushed(producer)
            except (KafkaException, NotMeasured) as failure:
                failures.append(failure)

        self.say(f"writes {LIVE_RATE:,} records a second from now on")
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            time.sleep(LEAD_S)  # the traffic of which the groups are a little behind
            yield
        finally:
            stop.set()
            thread.join(90)
        if failures or thread.is_alive():
            raise NotMeasured(f"the traffic has failed: {failures or 'it does not end'}")

    # -- positions and answers

    def _place_groups(self) -> None:
        """Commit every group on every partition; those of a live scenario follow the traffic for a while first."""
        if not self.scenario.live:
            self._commit([group for group in self.groups if (group, PARTITIONS[0]) not in self._positions], None)
            return
        behind = {(group, where): self._random.randrange(BEHIND_MAX + 1) for group in self.groups for where in PARTITIONS}
        until_s = time.monotonic() + FOLLOW_S
        self.say("groups follow the traffic")
        while time.monotonic() < until_s:
            self._commit(self.groups, behind)
            time.sleep(1.0)
        self._commit(self.groups, behind)

    def _commit(self, groups: Sequence[str], behind: Mapping[Key, int] | int | None) -> None:
        """Commit these groups.

        Args:
            groups: all of their partitions.
            behind: how far behind the log's end each stands; a number: at random up to that far; None: anywhere in the log.
        """
        spans, admin, requests = self._spans(), self._admin("east"), []
        for group in groups:
            for where, (low, high) in spans.items():
                least = low if behind is None else high - (behind if isinstance(behind, int) else behind[group, where])
                self._positions[group, where] = max(
                    low, least if isinstance(behind, Mapping) else self._random.randint(max(low, least), high)
                )
            rows = [TopicPartition(*where, self._positions[group, where]) for where in spans]
            requests.append(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, rows)], request_timeout=10))
        for request in requests:
            for future in request.values():
                refused = [row for row in future.result(timeout=15).topic_partitions if row.error]
                if refused:
                    raise NotMeasured(f"a position was not committed: {refused[0].error}")

    def _settle(self) -> None:
        """Take both answers when both are there and have stood still; those of MirrorMaker that do not come are missing."""
        self._within(self._mrc, READY_S)
        self._within(self._mm2, SETTLE_S)
        still_s = time.monotonic()
        before = None
        until_s = still_s + READY_S
        while time.monotonic() < still_s + QUIET_S:
            if time.monotonic() > until_s:
                raise NotMeasured(f"the answers do not come to rest within {READY_S:.0f} s")
            self._mrc()
            self._mm2()
            now = ({key: (row["floor"], row["translation"]["type"]) for key, row in self.ours.items()}, dict(self.theirs))
            if now != before:
                before, still_s = now, time.monotonic()
            time.sleep(0.5)
        self.say(self._said or "has all answers")

    def _mrc(self) -> bool:
        """Take mrc's answers; return whether there is one for every position."""
        command = [sys.executable, "-m", "mrc", "--config", str(self.sandbox.config_path), "--output", "json", "offsets", "list"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment)
        if done.returncode:
            self._said = done.stderr.decode(errors="replace")
            return False
        found = {}
        for row in json.loads(done.stdout):
            key = (row["group"], (row["topic"], row["partition"]))
            if self._positions.get(key) == row["source_offset"] and row["floor"] >= 0 and row["translation"]["type"] != "unknown":
                found[key] = row
        self.ours = found
        missing = len(self._positions) - len(found)
        self._said = f"mrc has no answer for {missing} positions" if missing else ""
        return not missing

    def _mm2(self) -> bool:
        """Take MM2's answers: what its last checkpoint of each group and partition says; return whether all are up to date."""
        found = {}
        for _, key, value in self._raw("west", ("east.checkpoints.internal", 0)):
            if key is not None and value is not None:
                checkpoint = decode_checkpoint(key, value)
                found[checkpoint.group, checkpoint.where] = checkpoint
        self.theirs = {key: found[key].downstream for key in self._positions if key in found}
        return all(key in found and found[key].upstream == offset for key, offset in self._positions.items())

    # -- reading

    def _raw(self, region: str, where: Where) -> list[Raw]:
        return read_all(self._client(region), [where])[where]

    def _read(self, region: str) -> dict[Where, list[Entry]]:
        return {where: events(records) for where, records in read_all(self._client(region), PARTITIONS).items()}

    def _mirrored(self) -> bool:
        """Whether the target's log ends with the source's last event, everywhere."""
        here, there = (read_all(self._client(region), PARTITIONS, last=20) for region in ("east", "west"))
        return all(here[w] and there[w] and here[w][-1][2] == there[w][-1][2] for w in PARTITIONS)

    def _within(self, reached: Callable[[], bool], seconds: float, every_s: float = 0.5) -> bool:
        """Poll until ``reached``; return whether it was in time."""
        until_s = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > until_s:
                return False
            time.sleep(every_s)
        return True

    def _until(self, reached: Callable[[], bool], seconds: float, what: str, every_s: float = 0.5) -> None:
        if not self._within(reached, seconds, every_s):
            raise NotMeasured(f"not within {seconds:.0f} s: {what}")

    # -- judging

    def _judge(self) -> dict[str, Any]:
        if self._refused:
            raise NotMeasured(f"{len(self._refused)} records were not written, first {self._refused[0]}")
        source, target = self._read("east"), self._read("west")
        written = {where: [(offset, event) for event, offset in found.items()] for where, found in self._written.items()}
        judges = {where: Judge(source[where], target[where], written[where]) for where in PARTITIONS}
        self._require(judges, source)
        theirs = {key: judges[key[1]].cost(self._positions[key], answer) for key, answer in self.theirs.items()}
        ours = {key: judges[key[1]].cost(self._positions[key], row["floor"]) for key, row in self.ours.items()}
        exact = sum(row["translation"]["type"] == "exact" for row in self.ours.values())
        wrong = [key for key, cost in ours.items() if cost.skipped or cost.reread > _stated(self.ours[key])]
        for key in wrong:
            self.say(f"WRONG: {key[0]} on {key[1]} committed {self._positions[key]}, {ours[key]}, said {json.dumps(self.ours[key])}")
        return {
            "mm2_reread_median": median([cost.reread for cost in theirs.values()]),
            "mm2_reread_max": max((cost.reread for cost in theirs.values()), default=None),
            "mm2_skipped": sum(cost.skipped for cost in theirs.values()),
            "mm2_missing": len(self._positions) - len(theirs),
            "mrc_reread_median": median([cost.reread for cost in ours.values()]),
            "mrc_reread_max": max((cost.reread for cost in ours.values()), default=None),
            "mrc_skipped": sum(cost.skipped for cost in ours.values()),
            "mrc_missing": len(self._positions) - len(ours),
            "mrc_repeats_max": max((_stated(row) for row in self.ours.values()), default=0),
            "mrc_over_its_bound": sum(cost.reread > _stated(self.ours[key]) for key, cost in ours.items()),
            "positions": len(self._positions),
            "exact_share": round(exact / len(self._positions), 4),
            "aborted_transactions": self._aborted,
            "copied_again": sum(judge.copied_again for judge in judges.values()),
            "source_offsets_without_record": sum(map(without_record, source.values())),
            "target_offsets_without_record": sum(map(without_record, target.values())),
            "records_per_partition": {f"{topic}-{p}": len(source[topic, p]) for topic, p in PARTITIONS},
            "copies_per_partition": {f"{topic}-{p}": len(target[topic, p]) for topic, p in PARTITIONS},
        }

    def _require(self, judges: Mapping[Where, Judge], source: Mapping[Where, Sequence[Entry]]) -> None:
        """Refuse to measure what did not happen."""
        if strangers := sum(judge.strangers for judge in judges.values()):
            raise NotMeasured(f"{strangers} records of the target were never written to the source")
        if self.scenario.restart and not all(judge.copied_again for judge in judges.values()):
            raise NotMeasured("MirrorMaker has not copied again on every partition")
        if self.scenario.transactional and not self._aborted:
            raise NotMeasured("no transaction was aborted")
        if not self.scenario.compacted and min(map(len, source.values())) < RECORDS:
            raise NotMeasured(f"a partition has fewer than {RECORDS:,} records")


def _stated(row: Mapping[str, Any]) -> int:
    """Return how many records may repeat, as mrc's answer says."""
    translation = row["translation"]
    return int(translation["repeats_max"]) if translation["type"] == "bounded" else 0


def _set(entries: Mapping[str, str]) -> list[ConfigEntry]:
    return [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in entries.items()]


def _flushed(producer: Producer) -> None:
    if producer.flush(60):
        raise NotMeasured("records were not acknowledged within a minute")


# ---------------------------------------------------------------- the command


def run_one(scenario: Scenario) -> dict[str, Any] | None:
    """Return the scenario's row, None where it could not be measured; its servers are gone by then.

    The state folder stays, with its logs, where it failed or an aim was missed.
    """
    folder = Path(tempfile.mkdtemp(prefix="mrc-bench-"))
    run = Run(scenario, folder)
    keep = False
    try:
        row = run.measure()
        keep = bool(missed(scenario.name, row))
        return row
    except (NotMeasured, MrcError, KafkaException, OSError, RuntimeError, subprocess.TimeoutExpired) as failure:
        keep = True
        run.say(f"NOT MEASURED: {failure}")
        return None
    finally:
        _take_down(run, wipe=not keep)


def _take_down(run: Run, *, wipe: bool) -> None:
    """End every process of the sandbox, whatever is pressed meanwhile."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run.sandbox.down(wipe=wipe)
        if wipe:
            shutil.rmtree(run.sandbox.state.folder, ignore_errors=True)
        else:
            run.say(f"logs are kept in {run.sandbox.state.folder}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run the scenarios, print the table, write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.translation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [scenario.name for scenario in SCENARIOS]
    kept = RESULTS / "translation.json"
    parser.add_argument("--scenario", action="append", choices=names, metavar="NAME", help="one of them; may be given again (default: all)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=kept,
        help="where results go (default: %(default)s); scenarios that stand there and were not run stay, if taken in the same setting",
    )
    parser.add_argument("--redraw", action="store_true", help="run nothing; draw the table in the docs anew from the results file")
    asked = parser.parse_args()
    document = ROOT / "docs" / "offset-translation.md"
    if asked.redraw:
        write_into(document, earlier(asked.json))
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    rows: dict[str, dict[str, Any]] = {}
    wanted = [scenario for scenario in SCENARIOS if not asked.scenario or scenario.name in asked.scenario]
    around = json.loads(json.dumps(circumstances(PARAMETERS)))
    for scenario in wanted:
        row = run_one(scenario)
        if row is not None:
            rows[scenario.name] = {**row, "commit": around["commit"]}
            print(table({scenario.name: row}), file=sys.stderr, flush=True)
    print(table(rows))
    if rows:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        result = merged(earlier(asked.json), {**around, "scenarios": rows}, names)
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
        if asked.json == kept and len(result["scenarios"]) == len(names):
            write_into(document, result)
    if len(rows) < len(wanted):
        print(f"not measured: {', '.join(one.name for one in wanted if one.name not in rows)}")
        return 1
    return 3 if any(missed(name, row) for name, row in rows.items()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt as interrupt:
        print(f"interrupted {interrupt}".strip(), file=sys.stderr)
        sys.exit(130)
