"""Both regions write about the same orders, the link is cut, resolvers die in mid-transaction: in the end both sides say the same.

What must come out is told by brute force, from the logs as a plain consumer reads them and the writers' own notes.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.cluster import KafkaCluster
from mrc.adapters.mirrormaker.connect import ConnectReplicator
from mrc.client import Seen, Stamper
from mrc.config import load
from mrc.control.client import Client
from mrc.control.dockets import AgentsDocket
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.headers import read_stamp
from mrc.core.model import Region
from mrc.core.model import TopicPartition as Tp
from mrc.resolver.audit import Filter, News
from mrc.sandbox.connect import flow_connector
from mrc.sandbox.layout import REGIONS, TOPICS, Options, other
from mrc.sandbox.world import Sandbox
from tests.core.conflict import oracle
from tests.core.conflict.test_convergence import plain
from tests.e2e.running import IN_TIME_S, environment, eventually, state
from tests.resolver.unstamped import stamps

pytestmark = pytest.mark.server

ORDERS = 1_000
EVENTS_PER_S = 150.0
TYPES = ("Placed", "Cancelled", "Shipped", "NoteAdded", "Delivered")
PARTITIONS = TOPICS["orders"]
KILLS = 2
"""In mid-transaction, in each region."""

RULES = """\
version: 1
regions: [east, west]
entities:
  - name: order
    topics: [orders]
    type: json:$.event
    fields: {note: json:$.note}
    rules:
      - id: shipped-beats-cancelled
        when: {pair: [Cancelled, Shipped]}
        resolve: {state_precedence: [Shipped, Cancelled]}
        on_loss: recall
      - {id: notes, when: {any_of: [NoteAdded]}, resolve: {merge_fields: [note]}}
      - {id: default, resolve: last_update_wins}
"""

PLAIN, PAYMENTS = "payments", 300
WITHOUT_HEADERS = RULES.replace("name: order", "name: payment").replace("[orders]", "[payments]\n    detection: watermark")

AS_PLAIN: list[dict[str, Any]] = [
    {"by": "state_precedence", "states": ["Shipped", "Cancelled"], "pair": ["Cancelled", "Shipped"]},
    {"by": "merge_fields", "fields": ["note"], "any_of": ["NoteAdded"]},
    {"by": "last_update_wins"},
]


class Writer(threading.Thread):
    """An application of one region: it reads what stands, and writes about any order. Its notes are what was acknowledged."""

    def __init__(self, sandbox: Sandbox, region: str) -> None:
        super().__init__(name=f"writer {region}", daemon=True)
        self.region = region
        self.acknowledged: dict[str, tuple[str, int]] = {}
        self.failed: list[str] = []
        self.ended = threading.Event()
        self._choose = random.Random(region)
        self._stamper = Stamper(region)
        self._seen = {f"order-{number}": Seen() for number in range(ORDERS)}
        self._producer = Producer({**sandbox.client_config(region, "producer"), "enable.idempotence": True, "linger.ms": 5})
        self._consumer = Consumer(
            {**sandbox.client_config(region, "admin"), "group.id": "test-writer", "isolation.level": "read_committed"}
        )
        self._consumer.assign([TopicPartition("mrc.resolved.orders", number, 0) for number in range(PARTITIONS)])

    def run(self) -> None:
        began_s, written = time.monotonic(), 0
        while not self.ended.is_set():
            for message in self._consumer.consume(500, 0.02):
                if message.error() is None:
                    headers: Any = message.headers()
                    self._seen[(message.key() or b"").decode()].add(headers)
            while written < (time.monotonic() - began_s) * EVENTS_PER_S:
                self._write()
                written += 1
            self._producer.poll(0)
        assert self._producer.flush(IN_TIME_S) == 0
        self._consumer.close()

    def _write(self) -> None:
        # A few orders are written often, so that they are in conflict again and again.
        key = f"order-{min(self._choose.randrange(ORDERS), self._choose.randrange(ORDERS))}"
        kind = self._choose.choice(TYPES)
        value = {"event": kind, **({"note": self._choose.randrange(1_000)} if kind == "NoteAdded" else {})}
        headers: Any = self._stamper.stamp(self._seen[key])
        stamp = read_stamp(headers)

        def answered(error: KafkaError | None, _message: object) -> None:
            if error is None:
                self.acknowledged[stamp.id] = (key, stamp.number)
            else:
                self.failed.append(error.name())

        body = None if self._choose.random() < 0.05 else json.dumps(value).encode()
        self._producer.produce("orders", body, key.encode(), headers=headers, on_delivery=answered)


class PlainWriter(threading.Thread):
    """An application that knows nothing of mrc, and writes about payments."""

    def __init__(self, sandbox: Sandbox, region: str) -> None:
        super().__init__(name=f"plain writer {region}", daemon=True)
        self.acknowledged: dict[str, tuple[str, int]] = {}
        self.failed: list[str] = []
        self.ended = threading.Event()
        self._region = region
        self._choose = random.Random(region)
        self._producer = Producer({**sandbox.client_config(region, "producer"), "enable.idempotence": True, "linger.ms": 5})

    def run(self) -> None:
        while not self.ended.wait(1 / EVENTS_PER_S):
            # Some are alike, the timestamp included: they are two events all the same.
            value = {"event": self._choose.choice(TYPES), "note": self._choose.randrange(3)}
            key = f"payment-{self._choose.randrange(PAYMENTS)}"
            for _ in range(self._choose.choice((1, 1, 1, 2))):
                self._producer.produce(PLAIN, json.dumps(value).encode(), key.encode(), on_delivery=self._answered)
            self._producer.poll(0)
        assert self._producer.flush(IN_TIME_S) == 0

    def _answered(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.acknowledged[f"{self._region}-{message.partition()}-{message.offset()}"] = (message.key().decode(), message.offset() + 1)
        else:
            self.failed.append(error.name())


class Process:
    """One region's resolver as operators run it."""

    def __init__(self, sandbox: Sandbox, config: Path, region: str) -> None:
        self.region = region
        self.deaths = 0
        self._state = sandbox.state.folder / f"resolver-{region}"
        self._log = sandbox.log_path(f"resolver-{region}")
        words = ["--config", str(config), "resolver", "run", "--region", region, "--state", str(self._state)]
        self._command = [sys.executable, "-m", "mrc", *words]
        self._process: subprocess.Popen[bytes] | None = None

    def said(self) -> str:
        return self._log.read_text()[-2000:]

    def works(self) -> bool:
        """Whether it has had its share of the partitions since it was started last."""
        return '"share"' in self._log.read_text().rpartition('"starts"')[2]

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment())

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.said()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(IN_TIME_S)

    def end(self) -> int:
        """Ask it to end; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(IN_TIME_S)

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(IN_TIME_S)


class AgentProcess(Process):
    """An agent of a region that is written, as operators run it."""

    def __init__(self, sandbox: Sandbox, config: Path, region: str) -> None:
        super().__init__(sandbox, config, region)
        self._log = sandbox.log_path(f"agent-of-{region}")
        words = ["--config", str(config), "agent", "run", "--region", region, "--agent", f"{region}-a"]
        self._command = [sys.executable, "-m", "mrc", *words]

    def until_it_answers(self, client: Client) -> None:
        (me,) = [one for one in client.agents if one.agent == f"{self.region}-a"]
        eventually(lambda: client.ask_all("Version", agents=[me])[0].error is None, self.said)


def configured(sandbox: Sandbox, rules: str = RULES) -> Path:
    """Write a configuration in which both regions are written."""
    settings = yaml.safe_load(sandbox.config_path.read_text())
    settings["replication_groups"][0] |= {"mode": "active-active", "rules": "conflicts.yaml"}
    settings["zookeeper"]["root"] = "/mrc-active-active"  # no record there names one region, so agents touch neither
    (sandbox.state.folder / "conflicts.yaml").write_text(rules)
    path = sandbox.state.folder / "active-active.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def cluster(sandbox: Sandbox, region: str) -> KafkaCluster:
    login = sandbox.client_config(region, "admin")
    access = Access(login["bootstrap.servers"], "SASL_PLAINTEXT", login["sasl.mechanism"], "admin", login["sasl.password"])
    return KafkaCluster(region, access, None, 10.0)


def copying_marks(sandbox: Sandbox, clusters: dict[str, KafkaCluster], topic: str = "orders") -> None:
    """Let the flows look for the resolvers' marks at once, as soon as there are any."""
    for region in REGIONS:
        eventually(lambda region=region: bool(clusters[region].topics([f"mrc.watermarks.{topic}"])))  # type: ignore[misc]
    for region in REGIONS:
        connect = ConnectReplicator(sandbox.layout.connect_url(region), 30.0)
        name = flow_connector(other(region), region)
        connect.configure(name, {**connect.settings(name), "refresh.topics.interval.seconds": "5"})


def in_mid_transaction(clusters: dict[str, KafkaCluster], region: str) -> bool:
    """Whether somebody has left a transaction open on what the resolver writes."""
    tps = [Tp(topic, number) for topic in ("mrc.resolved.orders", "mrc.changelog.orders.internal") for number in range(PARTITIONS)]
    stable, all_of_it = (clusters[region].ends(tps, isolation) for isolation in ("read_committed", "read_uncommitted"))
    return any(stable[tp] < all_of_it[tp] for tp in tps)


def kill_in_mid_transaction(process: Process, clusters: dict[str, KafkaCluster]) -> None:
    """Kill it at work, and again, until it has left a transaction open."""
    for _ in range(40):
        eventually(process.works, process.said)
        until_s = time.monotonic() + 5.0
        while not in_mid_transaction(clusters, process.region) and time.monotonic() < until_s:
            pass
        process.kill()
        process.deaths += 1
        left_open = in_mid_transaction(clusters, process.region)
        process.start()
        if left_open:
            return
    raise AssertionError("no transaction was ever left open")


def records(sandbox: Sandbox, region: str, topic: str) -> list[tuple[int, int, Any]]:
    """All committed records of a topic: partition, offset, message."""
    settings = {"group.id": "test-e2e", "enable.auto.commit": False, "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({**sandbox.client_config(region, "admin"), **settings})
    found = []
    left = set(range(next(count for name, count in TOPICS.items() if name in topic)))
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in left])
        until_s = time.monotonic() + IN_TIME_S
        while left:
            assert time.monotonic() < until_s
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    found.append((int(message.partition() or 0), int(message.offset() or 0), message))
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    left.discard(int(message.partition() or 0))
        return found
    finally:
        consumer.close()


def said(message: Any) -> dict[str, bytes]:
    return dict(message.headers())


def standing(sandbox: Sandbox, region: str, topic: str = "orders") -> dict[str, Any]:
    """The last resolved record per entity."""
    return {message.key().decode(): message for _, _, message in records(sandbox, region, f"mrc.resolved.{topic}")}


def is_final(sandbox: Sandbox, region: str, writers: Mapping[str, Writer | PlainWriter], topic: str = "orders") -> bool:
    """Whether what stands is final and made of everything that was acknowledged."""
    last: dict[str, dict[str, int]] = {}
    for origin, writer in writers.items():
        for key, number in writer.acknowledged.values():
            last.setdefault(key, {})[origin] = max(number, last.get(key, {}).get(origin, 0))
    stands = standing(sandbox, region, topic)
    return set(stands) == set(last) and all(
        said(message)["mrc-final"] == b"true"
        and said(message)["mrc-vv"] == ",".join(f"{one}={last[key][one]}" for one in sorted(last[key])).encode()
        for key, message in stands.items()
    )


def end(writers: Mapping[str, Writer | PlainWriter]) -> None:
    """Let the applications end when everything that they have written is acknowledged."""
    for writer in writers.values():
        writer.ended.set()
        writer.join(IN_TIME_S)


def until_final(sandbox: Sandbox, writers: Mapping[str, Writer | PlainWriter], topic: str = "orders") -> None:
    for region in REGIONS:
        eventually(lambda region=region: is_final(sandbox, region, writers, topic))  # type: ignore[misc]


def written(sandbox: Sandbox) -> dict[str, list[oracle.Event]]:
    """Every event of both regions' own logs by order, with the clocks that logs and marks, read by their offsets, give them."""
    found: dict[str, list[oracle.Event]] = {}
    for region in REGIONS:
        marks: dict[int, list[dict[str, Any]]] = {}
        for partition, _, message in records(sandbox, region, "mrc.watermarks.orders"):
            marks.setdefault(partition, []).append(json.loads(message.value()))
        for partition, offset, message in records(sandbox, region, "orders"):
            stamp, key = read_stamp(message.headers()), message.key().decode()
            body = {} if message.value() is None else json.loads(message.value())
            fields = {"note": body["note"]} if "note" in body else {}
            event = EntityEvent(
                f"order/{key}",
                stamp.id,
                stamp.origin,
                stamp.number,
                stamp.seen,
                stamp.hlc,
                body.get("event", ""),
                fields,
                message.value() is None,
            )
            one = plain(event)
            before = max((mark["clock_ms"] for mark in marks.get(partition, []) if mark["offset"] <= offset), default=-1)
            if event.hlc <= Hlc(before):
                one["hlc"] = (before, event.number)
            found.setdefault(key, []).append(one)
    return found


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(state("resolver"))
    try:
        made.up(Options(policy="default", links=True))
        yield made
    finally:
        made.down()


def test_both_regions_come_to_the_same_decisions_whatever_is_cut_and_killed(sandbox: Sandbox) -> None:
    config = configured(sandbox)
    clusters: dict[str, KafkaCluster] = {region: cluster(sandbox, region) for region in REGIONS}
    processes: dict[str, Process] = {region: Process(sandbox, config, region) for region in REGIONS}
    try:
        for process in processes.values():
            process.start()
        copying_marks(sandbox, clusters)
        for region in REGIONS:
            names = [f"{other(region)}.mrc.watermarks.orders", f"{other(region)}.orders"]
            eventually(lambda region=region, names=names: len(clusters[region].topics(names)) == len(names))  # type: ignore[misc]
        writers: dict[str, Writer] = {region: Writer(sandbox, region) for region in REGIONS}
        began_s = time.monotonic()
        for writer in writers.values():
            writer.start()
        eventually(lambda: all(standing(sandbox, region) for region in REGIONS))
        sandbox.cut("west")
        for _ in range(KILLS):
            for process in processes.values():
                kill_in_mid_transaction(process, clusters)
        sandbox.mend("west")
        time.sleep(3.0)
        end(writers)
        wrote_s = time.monotonic() - began_s
        until_final(sandbox, writers)
        final_s = time.monotonic() - began_s - wrote_s
        assert [process.end() for process in processes.values()] == [0, 0]
    finally:
        for process in processes.values():
            process.clean_up()
        for one in clusters.values():
            one.close()
    logs = judged(sandbox, writers)
    commands_say_the_same(config, logs)
    told = {region: (len(writer.acknowledged), processes[region].deaths) for region, writer in writers.items()}
    print(f"events acknowledged and kills: {told}; written for {wrote_s:.1f} s, final {final_s:.1f} s later")


def asked(config: Path, *words: str, code: int = 0) -> Any:
    """What a command says, as JSON."""
    command = [sys.executable, "-m", "mrc", "--config", str(config), "--output", "json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IN_TIME_S, check=False, env=environment())
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def commands_say_the_same(config: Path, logs: dict[str, list[oracle.Event]]) -> None:
    """Operators' commands against the same oracle: the conflicts, that regions agree, and what other rules would change."""
    began_s = time.monotonic()
    history = {key: oracle.history(f"order/{key}", events, AS_PLAIN, list(REGIONS)) for key, events in logs.items()}
    wins = {one["conflict"]: one["winner"] for steps in history.values() for one in steps if one["conflict"]}
    for region in REGIONS:
        rows = asked(config, "conflicts", "list", "--region", region, "--limit", "10000")
        assert {row["id"]: row["winner"] for row in rows} == wins
        assert sum(one["count"] for one in asked(config, "conflicts", "stats", "--region", region)["conflicts"]) == len(rows)
    one = asked(config, "conflicts", "show", rows[-1]["id"])
    assert {name: (said["state"], said["winner"]) for name, said in one["regions"].items()} == dict.fromkeys(
        REGIONS, ("the same", rows[-1]["winner"])
    )
    compared = asked(config, "conflicts", "compare")
    assert (compared["agrees"], compared["entities"], compared["provisional"]) == (True, len(logs), 0)
    same = asked(config, "rules", "dry-run", str(config.with_name("conflicts.yaml")))
    assert (same["conflicts"], same["unjudged_conflicts"], same["entities"], same["unjudged_entities"]) == (len(wins), 0, len(logs), 0)
    assert (same["winners"], same["rules"], same["standings"]) == (0, 0, 0)
    other = config.with_name("other.yaml")
    other.write_text(RULES.replace("[Shipped, Cancelled]", "[Cancelled, Shipped]"))
    would = [{**AS_PLAIN[0], "states": ["Cancelled", "Shipped"]}, *AS_PLAIN[1:]]
    then = {key: oracle.history(f"order/{key}", events, would, list(REGIONS)) for key, events in logs.items()}
    changed = {
        one["conflict"]: one["winner"]
        for steps in then.values()
        for one in steps
        if one["conflict"] and one["winner"] != wins[one["conflict"]]
    }
    found = asked(config, "rules", "dry-run", str(other), "--region", "west", code=3)
    assert changed
    assert (found["winners"], found["unjudged_conflicts"]) == (len(changed), 0)
    named = {row["conflict"]: row["would"]["winner"] for row in found["decisions"] if row["was"]["winner"] != row["would"]["winner"]}
    assert {id: changed[id] for id in named} == named
    assert len(named) == min(len(changed), 1_000)
    print(f"{len(wins)} conflicts, {len(changed)} otherwise by other rules; the commands took {time.monotonic() - began_s:.1f} s")


def judged(sandbox: Sandbox, writers: dict[str, Writer]) -> dict[str, list[oracle.Event]]:
    """Judge what both regions have written; return all events by order."""
    logs = written(sandbox)
    assert {one["id"] for events in logs.values() for one in events} == {id for writer in writers.values() for id in writer.acknowledged}
    assert [writer.failed for writer in writers.values()] == [[], []]
    right = {key: oracle.history(f"order/{key}", events, AS_PLAIN, list(REGIONS)) for key, events in logs.items()}
    # Every event was taken: none is missing from the decisions, none was taken for one that came again.
    assert sum(map(len, right.values())) == sum(len(writer.acknowledged) for writer in writers.values())
    wanted = sorted((one["conflict"], one["winner"]) for history in right.values() for one in history if one["conflict"])
    assert len(wanted) > ORDERS / 10
    stands = {region: standing(sandbox, region) for region in REGIONS}
    for region in REGIONS:
        found = [json.loads(message.value()) for _, _, message in records(sandbox, region, "mrc.conflicts.orders")]
        assert sorted((one["id"], one["winner"]) for one in found) == wanted, region
        for key, history in right.items():
            headers = said(stands[region][key])
            told = (headers["mrc-event-id"].decode(), json.loads(headers.get("mrc-fields", b"{}")))
            assert told == (history[-1]["winner"], history[-1]["fields"]), (region, key)
        finals = [
            (m.key(), said(m)["mrc-vv"]) for _, _, m in records(sandbox, region, "mrc.resolved.orders") if said(m)["mrc-final"] == b"true"
        ]
        assert len(finals) == len(set(finals)), region
        assert records(sandbox, region, "mrc.dead-letters.orders") == []
    east, west = (stands[region] for region in REGIONS)
    assert {key: message.value() for key, message in east.items()} == {key: message.value() for key, message in west.items()}
    conflicts = [sorted(m.value() for _, _, m in records(sandbox, region, "mrc.conflicts.orders")) for region in REGIONS]
    assert conflicts[0] == conflicts[1]
    asked = [json.loads(m.value())["id"] for region in REGIONS for _, _, m in records(sandbox, region, "mrc.compensations.orders")]
    assert asked
    assert len(asked) == len(set(asked))
    return logs


def test_rules_change_region_by_region_and_a_person_decides(sandbox: Sandbox) -> None:
    config = configured(sandbox)
    clusters: dict[str, KafkaCluster] = {region: cluster(sandbox, region) for region in REGIONS}
    processes: dict[str, Process] = {region: Process(sandbox, config, region) for region in REGIONS}
    agent, client = AgentProcess(sandbox, config, "west"), Client(load(config), "order-desk")
    began_s = time.monotonic()
    try:
        for process in (agent, *processes.values()):
            process.start()
        copying_marks(sandbox, clusters)
        eventually(lambda: status(config) == "agreed")
        agent.until_it_answers(client)
        following = docket_of(client).follow(Filter(rule="by-hand"))
        assert next(following).conflict is None
        asking = "      - {id: by-hand, when: {any_of: [Disputed]}, resolve: {manual: {ttl_s: 3600}}, on_loss: apology}\n"
        config.with_name("conflicts.yaml").write_text(RULES.replace("    rules:\n", f"    rules:\n{asking}"))
        east, west = processes.values()
        east.kill()
        east.start()
        eventually(lambda: status(config) == "suspended")
        events: dict[str, str] = {region: write_disputed(sandbox, region, "disputed") for region in REGIONS}
        time.sleep(2.0)
        assert open_ones(config, "east") == []
        assert said(standing(sandbox, "east")["disputed"])["mrc-final"] == b"false"
        assert west.end() == 0
        west.start()
        eventually(lambda: status(config) == "agreed")
        eventually(lambda: all(len(open_ones(config, region)) == 1 for region in REGIONS))
        (one,) = open_ones(config, "west")
        words = ("conflicts", "resolve", one["id"], "--winner", "east", "--actor", "ann", "--reason", "seen", "--yes", "--region", "west")
        assert asked(config, *words)["state"] == "decided"
        eventually(lambda: not open_ones(config, "east"))
        told = asked(config, "conflicts", "show", one["id"])
        assert (told["closed"], told["decision"]["actor"], told["winner"]) == ("decision", "ann", events["east"])
        assert {said["state"] for said in told["regions"].values()} == {"the same"}
        assert refused(config, *words) == "CONFLICT_CLOSED"
        for region in REGIONS:
            headers = said(standing(sandbox, region)["disputed"])
            assert (headers["mrc-event-id"], headers["mrc-final"]) == (events["east"].encode(), b"true")
        lost = [json.loads(m.value()) for region in REGIONS for _, _, m in records(sandbox, region, "mrc.compensations.orders")]
        assert [one["lost"]["id"] for one in lost if one["template"] == "apology"] == [events["west"]]
        assert asked(config, "conflicts", "compare")["agrees"]
        agents_do_the_same(sandbox, config, client, following, agent)
        assert [process.end() for process in (agent, *processes.values())] == [0, 0, 0]
    finally:
        client.close()
        for process in (agent, *processes.values()):
            process.clean_up()
        for one_cluster in clusters.values():
            one_cluster.close()
    print(f"rules changed and a conflict decided in {time.monotonic() - began_s:.1f} s")


def agents_do_the_same(sandbox: Sandbox, config: Path, client: Client, following: Iterator[News], agent: AgentProcess) -> None:
    """List, show, stream and resolve through an agent, which is killed in between, against what commands read from Kafka itself."""
    began_s, docket = time.monotonic(), docket_of(client)
    opened, closed = coming(following), coming(following)
    assert opened.conflict is not None
    assert closed.conflict is not None
    assert (opened.conflict.key, opened.conflict.open, opened.conflict.id) == ("disputed", True, closed.conflict.id)
    assert (closed.conflict.open, closed.conflict.closed) == (False, "decision")
    events: dict[str, str] = {region: write_disputed(sandbox, region, "again") for region in REGIONS}
    one = coming(following).conflict
    assert one is not None
    assert (one.key, one.open) == ("again", True)
    assert (
        [row["id"] for row in open_ones(config, "west")] == [found.id for found in docket.newest(Filter(outcome="open"), 200)] == [one.id]
    )
    for words in (("list",), ("show", one.id), ("stats",)):
        direct, through = (asked(config, "conflicts", *words, "--region", "west", *more) for more in ((), ("--agents",)))
        assert through == direct
    agent.kill()
    agent.start()
    agent.until_it_answers(client)
    answers = [docket.decide(one.id, "west", "ticket-1", "ann", "seen again", 30.0) for _ in range(2)]
    assert {(answer.state, answer.decision.id, answer.decision.winner) for answer in answers} == {("decided", "ticket-1", events["west"])}
    ended = coming(following).conflict
    assert ended is not None
    assert ended.decision is not None
    assert (ended.id, ended.decision.actor, ended.decision.region) == (one.id, "ann, says order-desk (unauthenticated)", "west")
    again = docket.follow(Filter(rule="by-hand"), opened.cursor)
    assert [coming(again).conflict for _ in range(3)] == [closed.conflict, one, ended]
    eventually(lambda: not open_ones(config, "east"))
    assert asked(config, "conflicts", "show", one.id)["regions"]["east"]["state"] == "the same"
    print(f"the same through an agent in {time.monotonic() - began_s:.1f} s")


def docket_of(client: Client) -> AgentsDocket:
    return AgentsDocket(client, Region("west"), "orders", "")


def coming(following: Iterator[News]) -> News:
    """The next conflict of a stream."""
    until_s = time.monotonic() + IN_TIME_S
    for news in following:
        if news.conflict is not None:
            return news
        assert time.monotonic() < until_s
    raise AssertionError("the stream has ended")


def test_without_headers_both_regions_decide_alike_by_what_marks_list(sandbox: Sandbox) -> None:
    config = configured(sandbox)
    clusters: dict[str, KafkaCluster] = {region: cluster(sandbox, region) for region in REGIONS}
    processes: dict[str, Process] = {region: Process(sandbox, config, region) for region in REGIONS}
    began_s = time.monotonic()
    try:
        # The group still knows them when they ask for other topics.
        for process in processes.values():
            process.start()
        copying_marks(sandbox, clusters)
        for process in processes.values():
            eventually(process.works, process.said)
            process.kill()
        configured(sandbox, WITHOUT_HEADERS)
        for process in processes.values():
            process.start()
        copying_marks(sandbox, clusters, PLAIN)
        writers: dict[str, PlainWriter] = {region: PlainWriter(sandbox, region) for region in REGIONS}
        for writer in writers.values():
            writer.start()
        eventually(lambda: all(standing(sandbox, region, PLAIN) for region in REGIONS))
        time.sleep(2.0)
        sandbox.cut("west")
        processes["east"].kill()
        time.sleep(2.0)
        processes["east"].start()
        sandbox.mend("west")
        time.sleep(2.0)
        end(writers)
        until_final(sandbox, writers, PLAIN)
        assert [process.end() for process in processes.values()] == [0, 0]
    finally:
        for process in processes.values():
            process.clean_up()
        for one in clusters.values():
            one.close()
    told = judged_by_marks(sandbox, writers, config)
    print(f"{told} in {time.monotonic() - began_s:.1f} s")


def judged_by_marks(sandbox: Sandbox, writers: dict[str, PlainWriter], config: Path) -> str:
    """Judge what both regions have written about payments; return what there was."""
    assert [writer.failed for writer in writers.values()] == [[], []]
    logs = listed(sandbox)
    assert {one["id"] for events in logs.values() for one in events} == {id for writer in writers.values() for id in writer.acknowledged}
    right = {key: oracle.history(f"payment/{key}", events, AS_PLAIN, list(REGIONS)) for key, events in logs.items()}
    assert sum(map(len, right.values())) == sum(len(writer.acknowledged) for writer in writers.values())
    wins = {one["conflict"]: one["winner"] for history in right.values() for one in history if one["conflict"]}
    seen = sum(bool(one["seen"]) for events in logs.values() for one in events)
    assert min(len(wins), seen) > 50
    for region in REGIONS:
        found = [json.loads(message.value()) for _, _, message in records(sandbox, region, f"mrc.conflicts.{PLAIN}")]
        assert [(one["id"], one["winner"]) for one in found] == list(dict.fromkeys((one["id"], one["winner"]) for one in found))
        assert {one["id"]: one["winner"] for one in found} == wins, region
        stands = {key: said(message)["mrc-event-id"].decode() for key, message in standing(sandbox, region, PLAIN).items()}
        assert stands == {key: history[-1]["winner"] for key, history in right.items()}, region
        assert records(sandbox, region, f"mrc.dead-letters.{PLAIN}") == []
    told = asked(config, "conflicts", "show", next(iter(wins)))
    assert told["steps"][0].startswith("concurrent by the regions' marks: ")
    compared = asked(config, "conflicts", "compare")
    assert (compared["agrees"], compared["entities"], compared["provisional"]) == (True, len(logs), 0)
    same = asked(config, "rules", "dry-run", str(config.with_name("conflicts.yaml")))
    assert (same["conflicts"], same["unjudged_conflicts"], same["entities"], same["unjudged_entities"]) == (len(wins), 0, len(logs), 0)
    counts = {region: len(writer.acknowledged) for region, writer in writers.items()}
    return f"without headers: events {counts}, {seen} had seen others, {len(wins)} conflicts"


def listed(sandbox: Sandbox) -> dict[str, list[oracle.Event]]:
    """Every event about payments of both regions' own logs, with the stamps that marks, read by their offsets, give them."""
    found: dict[str, list[oracle.Event]] = {}
    for region in REGIONS:
        marks: dict[int, list[dict[str, Any]]] = {}
        for partition, _, message in records(sandbox, region, f"mrc.watermarks.{PLAIN}"):
            marks.setdefault(partition, []).append(json.loads(message.value()))
        events: dict[int, dict[int, Any]] = {}
        for partition, offset, message in records(sandbox, region, PLAIN):
            events.setdefault(partition, {})[offset] = message
        for partition, some in events.items():
            at_ms = {offset: message.timestamp()[1] for offset, message in some.items()}
            for offset, stamp in stamps(region, partition, at_ms, marks[partition]):
                body = json.loads(some[offset].value())
                event = {"type": body["event"], "fields": {"note": body["note"]}, "deleted": False, **stamp}
                found.setdefault(some[offset].key().decode(), []).append(event)
    return found


def status(config: Path) -> str:
    """The state of the rules, `unknown` too where no region answers."""
    command = [sys.executable, "-m", "mrc", "--config", str(config), "--output", "json", "rules", "status"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IN_TIME_S, check=False, env=environment())
    assert done.returncode in (0, 3), done.stderr
    (found,) = json.loads(done.stdout)
    return str(found["state"])


def refused(config: Path, *words: str) -> str:
    """The code of the error with which a command ends."""
    command = [sys.executable, "-m", "mrc", "--config", str(config), "--output", "json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IN_TIME_S, check=False, env=environment())
    return str(json.loads(done.stderr)["error"]["code"])


def open_ones(config: Path, region: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked(config, "conflicts", "list", "--open", "--region", region)
    return found


def write_disputed(sandbox: Sandbox, region: str, key: str) -> str:
    """Write an event that has seen nothing of the other region; return its id."""
    headers: Any = Stamper(region).stamp(Seen())
    producer = Producer({**sandbox.client_config(region, "producer"), "enable.idempotence": True})
    producer.produce("orders", json.dumps({"event": "Disputed"}).encode(), key.encode(), headers=headers)
    assert producer.flush(IN_TIME_S) == 0
    return read_stamp(headers).id
