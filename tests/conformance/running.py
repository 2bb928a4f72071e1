"""Runs all cases of a variant in one sandbox, and keeps what came of it.

Topics, first records and first positions come first; then the connectors and one agent in west, which is all that translation
needs; then the cases' later rounds, all cases in turns, each round ended by everything being copied; then, when nothing
changes any more, both logs are read once and every answer is judged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import yaml
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import ResourceType
from kazoo.client import KazooClient

from mrc.config import load
from mrc.control.client import Client
from mrc.core.errors import MrcError
from mrc.sandbox import connect
from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox
from tests.conformance.case import Case, Place, Variant
from tests.conformance.cases import CASES, CONNECTORS
from tests.conformance.logs import Identify, Where, logs, records
from tests.conformance.oracle import Cost, Judge, Log, numbered
from tests.conformance.stage import MAIN, Stage, Topic, eventually
from tests.conformance.strategies import Answer, Exact, Identity, MirrorMaker, Position, Timestamp, Translator, answer_of

AGENT = "west-a"
CHECKPOINTS = "mrc.checkpoints.east.internal"
MAPS = "mrc.offset-map.east.internal"
GARBLED = b'["nobody","conf-garbled",0]'

COPIED_S = 480.0
SETTLED_S = 240.0
STILL_S = 6.0
"""Answers count when they have not changed for so long: longer than mrc waits before it looks at an answer again."""

AFTER_S = 12.0
"""Answers count so long after the last disturbance at the earliest: longer than mrc waits before it looks for topics made anew."""

SWEPT_MAX = 30
"""How many offsets of each log are translated beside the positions."""

SWEEP_S = 120.0
"""Deadline of a call that translates them: answers may take reading both logs."""

GROUPS: Mapping[str, str] = {
    "orders": "main",
    "uncommitted": "uncommitted",
    "uncommitted-late": "uncommitted-late",
    "renamed": "renamed",
    "changed": "headers",
    "filtered": "filter",
}
"""Replication groups, each with the connector by which mrc knows its flow."""

RESTARTED_S = 14.0
"""How long an agent that was started anew is watched: by then it has compared what is stored with what is committed, and has looked
for changed records, which it does every ten seconds."""


Rows = dict[str, dict[tuple[str, str, int], dict[str, Any]]]
"""Per replication group, mrc's list of checkpoints by group, topic and partition."""

Findings = dict[str, list[dict[str, Any]]]


def connector_name(name: str) -> str:
    """Return a connector's name in Connect."""
    return MAIN if name == "main" else f"conf.{name}"


class Swept(NamedTuple):
    """A single offset translated, and what is wrong with that."""

    back: bool
    partition: int
    offset: int
    answer: Mapping[str, Any]
    wrong: str


@dataclass
class Run:
    """One variant. Everything but `stage` is there once `go` has returned.

    Attributes:
        sources, targets: both logs as they were read in the end.
        positions: by case and place.
        answers: by strategy and position.
        rows: mrc's list of checkpoints per replication group.
        restarted: the same, after the agent was started anew.
        early: what mrc said at any time before, of positions that were the last ones of their groups then too.
        findings, findings_anew: what mrc's status says in the end, and after the agent was started anew, per replication group.
        told: every finding that it ever told of.
        swept: single offsets, by case.
        unsettled: why answers were taken though something still changed; empty where nothing did.
    """

    variant: Variant
    stage: Stage
    topics: dict[str, Topic] = field(default_factory=dict)
    sources: dict[Where, Log] = field(default_factory=dict)
    targets: dict[Where, Log] = field(default_factory=dict)
    positions: dict[tuple[str, str], Position] = field(default_factory=dict)
    answers: dict[str, Mapping[Position, Answer]] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    restarted: Rows = field(default_factory=dict)
    early: set[tuple[Position, int]] = field(default_factory=set)
    findings: Findings = field(default_factory=dict)
    findings_anew: Findings = field(default_factory=dict)
    told: Findings = field(default_factory=dict)
    swept: dict[str, list[Swept]] = field(default_factory=dict)
    unsettled: str = ""
    took_s: dict[str, float] = field(default_factory=dict)
    _stood: dict[Where, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    _copied: dict[Where, set[str]] = field(default_factory=lambda: defaultdict(set))
    _judges: dict[Where, Judge] = field(default_factory=dict)

    # -- the run

    def go(self) -> None:
        """Do all of it."""
        with self._timed("furnish"):
            self._furnish()
        with self._timed("round 0"):
            self._round(0)
            self._look()
            self._commit_after(0)
        with self._timed("connectors and agent"):
            self._configure()
            self._start()
        with self._timed("first copies"):
            self._until_copied()
        for number in range(1, max(len(case.rounds) for case in CASES)):
            with self._timed(f"round {number}"):
                self._round(number)
                self._until_copied()
                self._commit_after(number)
        with self._timed("settle"):
            self._settle()
        with self._timed("judge"):
            self._look()
            self._judges.clear()
            self._ask()
            self._sweep()
        with self._timed("agent anew"):
            self._restart_agent()

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self.took_s[what] = round(time.monotonic() - began_s, 1)
        print(f"conformance {self.variant}: {what}: {self.took_s[what]} s", file=sys.stderr, flush=True)

    # -- setting up

    def _furnish(self) -> None:
        """Make the topics; the brokers' cleaners look every 0.2 s, not every 15."""
        for region in ("east", "west"):
            self.stage.configure(region, "1", {"log.cleaner.backoff.ms": "200"}, ResourceType.BROKER)
        self.topics = {case.name: Topic(case.topic, case.mirror, case.width) for case in CASES}
        self.stage.make("east", {case.topic: (case.width, case.source) for case in CASES})
        self.stage.make(
            "west", {case.mirror: (case.partitions_there or case.width, case.target) for case in CASES if case.target is not None}
        )
        self.stage.make("west", {CHECKPOINTS: (1, {"cleanup.policy": "compact"}), MAPS: (1, {"cleanup.policy": "compact"})})
        for topic in (CHECKPOINTS, MAPS):
            self.stage.send(topic, 0, GARBLED, b"\x00 not json", region="west")
            self.stage.send(topic, 0, b"\xff", b"{}", region="west")
        self.stage.flush("west")

    def _round(self, number: int) -> None:
        for case in CASES:
            for step in case.rounds[number] if number < len(case.rounds) else ():
                step(self.stage, self.topics[case.name])
                if number:
                    self._listen()

    def _configure(self) -> None:
        """Write mrc.yaml: one replication group per flow that mrc must know the settings of."""
        path = self.stage.sandbox.config_path
        settings = yaml.safe_load(path.read_text())
        (shipped,) = settings["replication_groups"]
        shipped.pop("probe")
        written = []
        for name, known_by in GROUPS.items():
            cases = [case for case in CASES if case.replication_group == name]
            connector = connector_name(known_by)
            written.append(
                {
                    **shipped,
                    "name": name,
                    "policy": "default" if name == "renamed" else "identity",
                    "topics": [case.topic for case in cases],
                    "groups": [case.group for case in cases],
                    "flows": [
                        {"source": "east", "target": "west", "connector": connector},
                        {"source": "west", "target": "east", "connector": f"{connector}.back"},
                    ],
                }
            )
        settings["replication_groups"] = written
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        zookeeper = KazooClient(hosts=self.stage.sandbox.layout.zookeeper(), timeout=60.0)
        zookeeper.start(timeout=60.0)
        try:
            record, _ = zookeeper.get("/mrc/groups/orders/record")
            for name in GROUPS.keys() - {"orders"}:
                zookeeper.create(f"/mrc/groups/{name}/record", record, makepath=True)
        finally:
            zookeeper.stop()
            zookeeper.close()

    def _start(self) -> None:
        """Start the connectors, and the agent beside most of them: what it says while all begins must be right too."""
        sandbox = self.stage.sandbox
        self._prepare(connect.connectors(sandbox.layout, sandbox.state, "west"))
        started = [name for name in CONNECTORS if name != "uncommitted-late"]
        self.stage.post("conf.uncommitted")
        # A worker that has taken a connector may not tell of it for a moment, and no connector is read as committed.
        eventually(lambda: self.stage.running("conf.uncommitted"), "conf.uncommitted runs", 240.0)
        with ThreadPoolExecutor(1) as pool:
            agent = pool.submit(sandbox.start_agent, AGENT)
            for name in (MAIN, f"{MAIN}.checkpoint"):
                self.stage.rest("PUT", f"/connectors/{name}/config", self.stage.prepared[name])
                self.stage.posted.add(name)
            for name in ("checkpoint-renamed", "heartbeat", *(name for name in started if name not in ("main", "moved", "uncommitted"))):
                self.stage.post(f"conf.{name}")
            self.stage.post("conf.moved", state="STOPPED")
            begins = next(case for case in CASES if case.name.startswith("S12"))
            self.stage.set_positions("conf.moved", {(begins.topic, p): 99 for p in range(begins.width)})
            self.stage.rest("PUT", "/connectors/conf.moved/resume")
            agent.result(timeout=240)
        eventually(lambda: all(self.stage.running(connector_name(name)) for name in started), "all connectors run", 480.0)

    def _prepare(self, base: Mapping[str, Mapping[str, str]]) -> None:
        """Note the settings of every connector, from the sandbox's own."""
        for name, own in CONNECTORS.items():
            topics = ",".join(_pattern(case.topic) for case in CASES if case.connector == name)
            self.stage.prepared[connector_name(name)] = {**base[MAIN], **_COMMON, "topics": topics, **own}
        sandbox = self.stage.sandbox
        way_back = connect.connectors(sandbox.layout, sandbox.state, "east")[connect.flow_connector("west", "east")]
        back = next(case for case in CASES if case.name == "S23-came-from-the-target")
        self.stage.prepared["conf.back"] = {**way_back, **_COMMON, "topics": _pattern(back.topic), **CONNECTORS["renamed"]}
        checkpointing = base[f"{MAIN}.checkpoint"]
        for name, renamed in ((f"{MAIN}.checkpoint", False), ("conf.checkpoint-renamed", True)):
            topics = ",".join(_pattern(case.topic) for case in CASES if (case.replication_group == "renamed") == renamed)
            quick = {"refresh.groups.interval.seconds": "1", "emit.checkpoints.interval.seconds": "1"}
            self.stage.prepared[name] = {**checkpointing, **quick, "topics": topics, **(CONNECTORS["renamed"] if renamed else {})}
        self.stage.prepared["conf.heartbeat"] = {
            **checkpointing,
            "connector.class": "org.apache.kafka.connect.mirror.MirrorHeartbeatConnector",
            "heartbeats.topic.replication.factor": "1",
            "emit.heartbeats.interval.seconds": "1",
        }

    # -- reading

    def _identify(self, *, there: bool) -> dict[Where, Identify]:
        found: dict[Where, Identify] = {}
        for case in CASES:
            topic = self.topics[case.name]
            for partition in range(topic.partitions):
                if not there:
                    found[topic.name, partition] = case.identify
                elif self._has(topic.target, partition):
                    found[topic.target, partition] = case.identify_there or case.identify
        return found

    def _has(self, topic: str, partition: int) -> bool:
        known = self._there.get(topic)
        return known is not None and partition < known

    def _look(self) -> None:
        """Read both logs, and remember every event that was ever seen."""
        cluster = self.stage.admin("west").list_topics(timeout=60)
        self._there = {name: len(topic.partitions) for name, topic in cluster.topics.items()}
        uncommitted = {case.topic for case in CASES if case.isolation == "read_uncommitted"}
        wanted = self._identify(there=False)
        sides = [
            ("east", {where: one for where, one in wanted.items() if where[0] not in uncommitted}, "read_committed"),
            ("east", {where: one for where, one in wanted.items() if where[0] in uncommitted}, "read_uncommitted"),
            ("west", self._identify(there=True), "read_committed"),
        ]
        with ThreadPoolExecutor(len(sides)) as pool:
            read = list(pool.map(lambda side: logs(self.stage.config(side[0]), side[1], side[2]), sides))
        self.sources, self.targets = {**read[0], **read[1]}, read[2]
        for case in CASES:
            topic = self.topics[case.name]
            for partition in range(topic.partitions):
                self._remember(case, topic, partition)

    def _remember(self, case: Case, topic: Topic, partition: int) -> None:
        here, there = (topic.name, partition), (topic.target, partition)
        if case.alike:
            self.sources[here] = numbered(self.sources[here])
            if there in self.targets:
                self.targets[there] = numbered(self.targets[there])
        if case.anew:  # what stood in the topic's earlier life counts for nothing
            living = f"{topic.name}/{partition}/{topic.life}/"
            self._stood[here] = {id: offset for id, offset in self._stood[here].items() if id.startswith(living)}
        self._stood[here].update({event.id: event.offset for event in self.sources[here].events})
        if there in self.targets:
            self._copied[there].update(event.id for event in self.targets[there].events)

    def _not_copied(self) -> list[str]:
        """Return what MirrorMaker has still to copy: a few ids per partition."""
        missing = []
        for case in (case for case in CASES if connector_name(case.connector) in self.stage.posted):
            topic = self.topics[case.name]
            for partition in range(topic.partitions):
                ids = {event.id for event in self.sources[topic.name, partition].events} - self.stage.lost
                missing += sorted(ids - self._copied[topic.target, partition])[:2]
        return missing

    def _until_copied(self) -> None:
        missing: list[str] = []

        def copied() -> bool:
            self._listen(single=True)
            self._look()
            missing[:] = self._not_copied()
            return not missing

        until_s = time.monotonic() + COPIED_S
        while not copied():
            assert time.monotonic() < until_s, f"not copied within {COPIED_S:.0f} s: {missing}"

    # -- groups

    def _commit_after(self, number: int) -> None:
        """Commit the positions of the cases whose last round this was."""
        for case in CASES:
            if len(case.rounds) - 1 == number:
                self._commit(case)

    def _commit(self, case: Case) -> None:
        topic = self.topics[case.name]
        positions: dict[Where, int] = {}
        for index, place in enumerate(case.places):
            partition = index if place.partition is None else place.partition
            offset = place.at if isinstance(place.at, int) else place.at(self.sources[topic.name, partition])
            positions[topic.name, partition] = offset
            self.positions[case.name, place.label] = Position(
                case.name, place.label, case.replication_group, case.group, topic.name, topic.target, partition, offset
            )
        if case.members:
            self._commit_as_member(case, topic, positions)
        else:
            self.stage.commit(case.group, positions)

    def _commit_as_member(self, case: Case, topic: Topic, positions: Mapping[Where, int]) -> None:
        settings = {"static": {"group.instance.id": "one"}, "kip848": {"group.protocol": "consumer"}}.get(case.members, {})
        rows = [
            TopicPartition(*where, offset, case.metadata) if case.metadata else TopicPartition(*where, offset)
            for where, offset in positions.items()
        ]
        if case.members == "manual":
            consumer = Consumer({**self.stage.config("east"), "group.id": case.group, "enable.auto.commit": False})
            consumer.assign(rows)
            self.stage.members.append(consumer)
        else:
            consumer = self.stage.member(case.group, topic.name, **settings)
        consumer.commit(offsets=rows, asynchronous=False)

    # -- mrc's answers

    def _listen(self, *, single: bool = False) -> Rows:
        """Ask the agent for its checkpoints and findings now, and keep what it says; nothing where it does not answer yet.

        Args:
            single: translate every position as a single offset as well.
        """
        found: Rows = {}
        with Client(load(self.stage.sandbox.config_path)) as client:
            for name in GROUPS:
                with suppress(MrcError):
                    listed = client.ask_leader("west", "ListCheckpoints", replication_group=name, group="", topic="")
                    rows = msgspec.to_builtins(listed)
                    found[name] = {(row["group"], row["topic"], row["partition"]): row for row in rows}
                    status = client.ask_leader("west", "Status", replication_group=name)
                    told = self.told.setdefault(name, [])
                    told += [one for one in msgspec.to_builtins(status.findings) if one not in told]
            for position in self.positions.values() if single else ():
                with suppress(MrcError):
                    view = self._translate(client, position.replication_group, position.topic, position.partition, position.committed)
                    if view["type"] != "unknown":
                        self.early.add((position, view["offset"]))
        for position in self.positions.values():
            answer = answer_of(found.get(position.replication_group, {}), position)
            if answer.offset is not None:
                self.early.add((position, answer.offset))
        return found

    def _translate(self, client: Client, group: str, topic: str, partition: int, offset: int, *, back: bool = False) -> dict[str, Any]:
        """Translate a single offset. Raises MrcError where the agent refuses."""
        source = "west" if back else "east"
        view = client.ask_leader(
            "west", "Translate", replication_group=group, source=source, topic=topic, partition=partition, offset=offset
        )
        found: dict[str, Any] = msgspec.to_builtins(view)
        return found

    def _settle(self) -> None:
        """Return when mrc has a checkpoint of every position and none has changed for a while; else say what still did."""
        began_s = changed_s = time.monotonic()
        last: object = None
        waiting: list[str] = []
        while time.monotonic() < began_s + SETTLED_S:
            found = self._listen()
            said = {key: (row["source_offset"], row["translation"], row["floor"]) for rows in found.values() for key, row in rows.items()}
            if said != last:
                last, changed_s = said, time.monotonic()
            waiting = [
                f"{p.case} {p.label}"
                for case, p in self._watched()
                if answer_of(found.get(p.replication_group, {}), p).kind in ("absent", "stale")
            ]
            now_s = time.monotonic()
            if not waiting and now_s - changed_s > STILL_S and now_s - began_s > AFTER_S:
                return
            time.sleep(0.5)
        self.unsettled = f"no checkpoint of {waiting}" if waiting else "answers still change"
        print(f"conformance {self.variant}: not settled within {SETTLED_S:.0f} s: {self.unsettled}", file=sys.stderr, flush=True)

    def _watched(self) -> Iterator[tuple[Case, Position]]:
        for case in CASES:
            for place in case.places:
                if "absent" not in place.want.kinds and self.variant not in place.xfail:
                    yield case, self.positions[case.name, place.label]

    def _ask(self) -> None:
        exact = Exact(self.stage)
        self.rows = {name: exact.rows(name) for name in GROUPS}
        positions = list(self.positions.values())
        strategies: list[Translator] = [exact, MirrorMaker(self.stage), Identity(), Timestamp(self.stage, self.sources, self.targets)]
        self.answers = {strategy.name: strategy.answers(positions) for strategy in strategies}
        self.findings = {name: self._status(name) for name in GROUPS}

    def _status(self, name: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "mrc", "--config", str(self.stage.sandbox.config_path), "-o", "json", "-g", name, "status"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.stdout, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return found

    def _sweep(self) -> None:
        """Translate many single offsets, both ways."""
        with Client(load(self.stage.sandbox.config_path)) as client:
            for case in CASES:
                topic = self.topics[case.name]
                self.swept[case.name] = [
                    swept
                    for partition in range(min(2, topic.partitions))
                    if (topic.target, partition) in self.targets
                    for back in (False, True)
                    for swept in self._sweep_log(client, case, topic, partition, back=back)
                ]

    def _sweep_log(self, client: Client, case: Case, topic: Topic, partition: int, *, back: bool) -> Iterator[Swept]:
        log = self.targets[topic.target, partition] if back else self.sources[topic.name, partition]
        offsets = list(_spread(log.start, log.end + 2, SWEPT_MAX if partition == 0 else SWEPT_MAX // 6))
        places = [
            {"region": "west" if back else "east", "topic": topic.name, "partition": partition, "offset": offset} for offset in offsets
        ]
        views = client.ask_leader("west", "TranslateMany", deadline_s=SWEEP_S, replication_group=case.replication_group, places=places)
        for view in views:
            answer: dict[str, Any] = msgspec.to_builtins(view.translation)
            yield Swept(back, partition, view.offset, answer, self._wrong(case, partition, view.offset, answer, back=back))

    def _wrong(self, case: Case, partition: int, offset: int, answer: Mapping[str, Any], *, back: bool) -> str:
        if answer["type"] == "unknown":
            return ""
        judge = self.judge(case, partition)
        cost = judge.to_source(offset, answer["offset"]) if back else judge.to_target(offset, answer["offset"])
        if case.alike_foreign:
            cost = cost._replace(repeated=0)
        return wrong(cost, answer["type"], answer["repeats_max"])

    # -- afterwards

    def _restart_agent(self) -> None:
        """Start the agent anew: its answers come from what is stored."""
        sandbox = self.stage.sandbox
        sandbox.stop_agent(AGENT)
        sandbox.start_agent(AGENT)
        began_s = time.monotonic()
        wanted = {(name, key) for name, rows in self.rows.items() for key in rows}

        def answered() -> bool:
            self.restarted = self._listen(single=time.monotonic() - began_s < 2.0)
            return wanted <= {(name, key) for name, rows in self.restarted.items() for key in rows}

        while time.monotonic() - began_s < RESTARTED_S or not (answered() or time.monotonic() - began_s > 3 * RESTARTED_S):
            answered()
            time.sleep(0.3)
        self.findings_anew = {name: self._status(name) for name in GROUPS}
        where = (CHECKPOINTS, 0)
        found, _ = records(self.stage.config("west"), [where], "read_committed")
        self._history = [(r.key, r.value) for r in found[where]]

    # -- what tests ask

    def judge(self, case: Case, partition: int) -> Judge:
        """Return the oracle for one partition of a case."""
        topic = self.topics[case.name]
        here = (topic.name, partition)
        if here not in self._judges:
            self._judges[here] = self._judge(here, (topic.target, partition))
        return self._judges[here]

    def _judge(self, here: Where, there: Where) -> Judge:
        return Judge(self.sources[here], self.targets[there], self._stood[here], self.stage.headless & self._stood[here].keys())

    def cost(self, case: Case, position: Position, offset: int) -> Cost:
        """Judge an answer for a position."""
        return self.judge(case, position.partition).to_target(position.committed, offset)

    def place(self, case: Case, place: Place) -> tuple[Position, Answer]:
        """Return a place's position and mrc's answer."""
        position = self.positions[case.name, place.label]
        return position, self.answers["exact"][position]

    def history(self, group: str, topic: str, partition: int) -> list[dict[str, Any]]:
        """Return every checkpoint of mrc's that was ever written for a group on a partition, in order."""
        key = [group, topic, partition]
        return [json.loads(value) for raw, value in self._history if raw is not None and value is not None and _json(raw) == key]

    def tombstoned(self) -> set[tuple[str, str, int]]:
        """Return the checkpoints whose last record is a tombstone."""
        last = {raw: value for raw, value in self._history if raw is not None}
        return {(k[0], k[1], k[2]) for raw, value in last.items() if value is None and isinstance(k := _json(raw), list)}

    _history: list[tuple[bytes | None, bytes | None]] = field(default_factory=list)
    _there: dict[str, int] = field(default_factory=dict)


def wrong(cost: Cost, kind: str, repeats_max: int) -> str:
    """Return what an answer of this kind may not cost, and does; empty where it keeps its word."""
    if cost.skipped:
        return f"skips {len(cost.skipped)} events, such as {cost.skipped[0]}"
    if cost.beyond:
        return "lies beyond the end of the other log"
    if kind == "exact" and cost.repeated:
        return f"repeats {cost.repeated} records, and is said to be exact"
    if kind == "bounded" and cost.repeated > repeats_max:
        return f"repeats {cost.repeated} records, and at most {repeats_max} are said to"
    return ""


_COMMON = {
    "tasks.max": "1",
    # A mirror's settings are a case's own.
    "sync.topic.configs.enabled": "false",
    # Many producers share one small worker.
    "producer.override.buffer.memory": "4194304",
    # What a killed worker has left open keeps the next one from reading its own positions for so long.
    "producer.override.transaction.timeout.ms": "5000",
}
"""What all source connectors have beside the sandbox's settings."""


def _pattern(topic: str) -> str:
    return topic.replace(".", "\\.")


def _spread(begin: int, end: int, most: int) -> Iterable[int]:
    """Return offsets of [begin, end), all of them or ``most`` spread evenly, both ends among them."""
    if end - begin <= most:
        return range(begin, end)
    return sorted({begin + round(number * (end - 1 - begin) / (most - 1)) for number in range(most)})


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def run(variant: Variant, sandbox: Sandbox) -> Run:
    """Run every case of a variant in a fresh sandbox; the caller takes it down."""
    began_s = time.monotonic()
    sandbox.up(Options(mm2_exactly_once=variant == "exactly-once"))
    done = Run(variant, Stage(sandbox, variant == "exactly-once"))
    done.took_s["sandbox"] = round(time.monotonic() - began_s, 1)
    try:
        done.go()
    finally:
        done.stage.close()
    return done


def cores() -> int:
    """Return how many cores the run had."""
    return os.cpu_count() or 1
