"""Wrong requests and a broken world, on real servers: each has its stable code, says what to do next, and changes nothing.

What must not change is read past mrc: the nodes below its root in ZooKeeper and the brokers' ACLs.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kazoo.client import KazooClient

from mrc.adapters.kafka.acls import EVERY_BINDING, exactly, to_kafka
from mrc.config import load, runbook_folder
from mrc.core.inventory import Binding
from mrc.sandbox import processes
from mrc.sandbox.layout import Options
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox
from tests.e2e.running import (
    IN_TIME_S,
    begun,
    command,
    environment,
    eventually,
    leader,
    mrc,
    ready,
    refusal,
    said,
    state,
    status,
    written_to,
)

pytestmark = pytest.mark.server

ROOT = "/mrc/groups/orders"
RECORD = f"{ROOT}/record"
REGIONS = ("east", "west")
FLOW = "mrc.orders.east-west"

Nodes = dict[str, bytes]


class Ground:
    """What is so, read without mrc."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.zookeeper = KazooClient(hosts=sandbox.layout.zookeeper(), timeout=60.0)
        self.zookeeper.start(timeout=60.0)
        quiet = {"log_level": "0"}
        self._admins = {region: AdminClient({**sandbox.client_config(region, "admin"), **quiet}) for region in REGIONS}

    def close(self) -> None:
        self.zookeeper.stop()
        self.zookeeper.close()

    def node(self, path: str) -> bytes:
        data: bytes = self.zookeeper.get_async(path).get(timeout=IN_TIME_S)[0]
        return data

    def write(self, path: str, data: bytes) -> None:
        self.zookeeper.set_async(path, data).get(timeout=IN_TIME_S)

    def nodes(self, path: str = ROOT) -> Nodes:
        """The record, the fences, the journal of every move: everything that mrc keeps of the replication group.

        Without what is measured of a move: that grows every second for as long as one runs.
        """
        found: Nodes = {path: self.node(path)}
        for name in self.zookeeper.get_children_async(path).get(timeout=IN_TIME_S):
            if name != "measured":
                found |= self.nodes(f"{path}/{name}")
        return found

    def acls(self, *regions: str) -> dict[str, set[str]]:
        asked = {region: self._admins[region].describe_acls(EVERY_BINDING, request_timeout=60.0) for region in regions or REGIONS}
        return {region: {str(binding) for binding in future.result(timeout=60.0)} for region, future in asked.items()}

    def refuse(self, region: str, binding: Binding) -> None:
        for future in self._admins[region].create_acls([to_kafka(binding)], request_timeout=60.0).values():
            future.result(timeout=60.0)

    def allow(self, region: str, binding: Binding) -> None:
        for future in self._admins[region].delete_acls([exactly(binding)], request_timeout=60.0).values():
            future.result(timeout=60.0)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        before = self.nodes(), self.acls()
        yield
        assert (self.nodes(), self.acls()) == before


class World(NamedTuple):
    sandbox: Sandbox
    traffic: Traffic
    ground: Ground

    @property
    def runbook(self) -> Path:
        return self.sandbox.state.folder / "runbooks" / "switchover.yaml"

    def connect(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"{self.sandbox.layout.connect_url('west')}/connectors/{FLOW}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """East is open, west follows; runbooks are read from a folder of this sandbox's own."""
    sandbox = Sandbox(state("refusals"))
    traffic = Traffic(sandbox.state.folder)
    try:
        sandbox.up(Options())
        shutil.copytree(runbook_folder(load(sandbox.config_path).replication_groups[0]), sandbox.state.folder / "runbooks")
        _edit(sandbox, lambda written: written["replication_groups"][0].update(runbooks="runbooks"))
        sandbox.start_agents()
        traffic.start(100.0, groups={"billing": 0.0, "shipping": 0.5})
        ground = Ground(sandbox)
        ready(sandbox, "west")
        yield World(sandbox, traffic, ground)
        ground.close()
    finally:
        sandbox.down()


def _edit(sandbox: Sandbox, change: Callable[[dict[str, Any]], object]) -> None:
    written = yaml.safe_load(sandbox.config_path.read_text())
    change(written)
    sandbox.config_path.write_text(yaml.safe_dump(written, sort_keys=False))


@contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    """Let a file hold ``text`` for a while."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def configured(world: World, change: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    """Let the agents of west run with another configuration for a while."""
    before = world.sandbox.config_path.read_text()
    world.sandbox.stop_agents("west")
    _edit(world.sandbox, change)
    try:
        world.sandbox.start_agents("west")
        yield
    finally:
        world.sandbox.config_path.write_text(before)
        world.sandbox.stop_agents("west")
        world.sandbox.start_agents("west")
        ready(world.sandbox, "west")


def refused(done: subprocess.CompletedProcess[str], code: str, exit_code: int) -> dict[str, Any]:
    """The error that a command ended with, held to what every error promises."""
    error = refusal(done)
    assert (error["code"], done.returncode) == (code, exit_code), done.stderr
    assert error["next"]
    assert "Traceback" not in done.stderr
    return error


def findings(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """The findings that status shows, by code."""
    view = said(sandbox, "status")
    return {finding["code"]: finding for finding in view["findings"]}


def planned_without(sandbox: Sandbox, code: str) -> bool:
    """Whether a switchover to west can be planned, whatever the plan finds except this."""
    done = mrc(sandbox, "plan", "switchover", "west")
    return done.returncode in (0, 3) and code not in {finding["code"] for finding in json.loads(done.stdout)["findings"]}


def quiet(sandbox: Sandbox) -> None:
    """Wait until status has nothing to find."""
    eventually(lambda: findings(sandbox) == {}, lambda: findings(sandbox))


# ---------------------------------------------------------------- asked wrongly


def test_names_that_there_are_not_are_answered_with_those_that_there_are(world: World) -> None:
    with world.ground.unchanged():
        for arguments, code, told in (
            (("switchover", "north", "--yes"), "UNKNOWN_REGION", "east, west"),
            (("plan", "failover", "north"), "UNKNOWN_REGION", "east, west"),
            (("switchover", "east", "--yes"), "ALREADY_ACTIVE", "epoch 1"),
            (("failover", "west", "--yes"), "NOT_ATTESTED", "attested"),
            (("offsets", "list", "--group", "nobody"), "UNKNOWN_GROUP", "billing, shipping"),
            (("offsets", "list", "--topic", "nothing"), "UNKNOWN_TOPIC", "orders, payments"),
            (
                ("offsets", "translate", "--from", "north", "--topic", "orders", "--partition", "0", "--offset", "0"),
                "UNKNOWN_REGION",
                "east",
            ),
            (
                ("offsets", "translate", "--from", "east", "--topic", "orders", "--partition", "9", "--offset", "0"),
                "UNKNOWN_TOPIC",
                "orders-9",
            ),
            (("lag", "--replication-group", "nothing"), "UNKNOWN_REPLICATION_GROUP", "orders"),
            (("history", "nothing"), "UNKNOWN_EXECUTION", "nothing"),
            (("watch", "nothing"), "UNKNOWN_EXECUTION", "nothing"),
            (("approve", "nothing"), "UNKNOWN_EXECUTION", "nothing"),
            (("abort",), "UNKNOWN_EXECUTION", "name one"),
        ):
            assert told in refused(mrc(world.sandbox, *arguments), code, 2)["message"]


def test_a_typo_in_the_configuration_is_named_with_its_line_and_what_is_allowed(world: World) -> None:
    text = world.sandbox.config_path.read_text()
    line = 1 + text.splitlines().index("  policy: identity")
    with world.ground.unchanged(), written(world.sandbox.config_path, text.replace("policy: identity", "policy: identiy")):
        error = refused(mrc(world.sandbox, "status"), "CONFIG_INVALID", 2)
    assert error["where"] == f"{world.sandbox.config_path}:{line} replication_groups[0].policy"
    assert "did you mean identity?" in error["message"]
    assert "allowed: identity, default" in error["message"]


def test_an_unsafe_runbook_is_refused_with_file_and_line(world: World) -> None:
    text = world.runbook.read_text()
    begins = text.index("  - name: open-target\n")
    opening = text[begins : text.index("  - name: route\n")]
    without = text.replace(opening, "")
    after = without.index("  - name: fence-source\n")
    unsafe = without[:after] + opening + without[after:]
    at = unsafe[:after].count("\n")
    with world.ground.unchanged():
        with written(world.runbook, unsafe):
            error = refused(mrc(world.sandbox, "switchover", "west", "--yes"), "RUNBOOK_INVALID", 2)
            assert "unsafe order: open-target needs closed, positions-moved, source-settled first" in error["message"]
            assert f"{world.runbook}:{at + 1} step open-target" in error["where"]
            assert mrc(world.sandbox, "runbook", "lint").returncode == 3
        with written(world.runbook, world.runbook.read_text().replace("action: drain", "action: [drain]")):
            error = refused(mrc(world.sandbox, "switchover", "west", "--yes"), "RUNBOOK_INVALID", 2)
            assert error["where"].startswith(f"{world.runbook}:{1 + _line_of(world.runbook, 'action: [drain]')} ")


def _line_of(path: Path, part: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines()) if part in line)


# ---------------------------------------------------------------- while a move runs


@contextmanager
def waiting_at_the_fence(world: World) -> Iterator[None]:
    """Let switchovers ask a person before they touch anything."""
    text = world.runbook.read_text()
    asking = text.replace("    action: fence-source\n", "    action: fence-source\n    approval: true\n")
    assert asking != text
    with written(world.runbook, asking):
        try:
            yield
        finally:  # whatever the test found, the next one begins without a move
            mrc(world.sandbox, "abort")


def ended(world: World, execution: str) -> None:
    """Abort an execution that has touched nothing and see it end."""
    assert mrc(world.sandbox, "abort", execution).returncode == 0
    watched = mrc(world.sandbox, "watch", execution)
    assert json.loads(watched.stdout)["status"] == "aborted", watched.stderr


def untouched(world: World) -> tuple[bytes, dict[str, set[str]]]:
    return world.ground.node(RECORD), world.ground.acls()


def test_a_second_move_and_a_token_of_another_request_are_refused_while_one_runs(world: World) -> None:
    before = untouched(world)
    with waiting_at_the_fence(world):
        first = mrc(world.sandbox, "switchover", "west", "--yes", "--no-wait", "--token", "one")
        assert first.returncode == 4, first.stderr
        execution = json.loads(first.stdout)["id"]
        eventually(lambda: said(world.sandbox, "history")[0]["status"] == "waiting")
        with world.ground.unchanged():
            second = refused(mrc(world.sandbox, "switchover", "west", "--yes"), "MOVE_IN_PROGRESS", 2)
            assert execution in second["message"]
            again = mrc(world.sandbox, "switchover", "west", "--yes", "--no-wait", "--token", "one")
            assert json.loads(again.stdout)["id"] == execution
            for other in (("failover", "west", "--attest-dead"), ("switchover", "east")):
                reused = refused(mrc(world.sandbox, *other, "--yes", "--token", "one"), "TOKEN_REUSED", 2)
                assert execution in reused["message"]
        ended(world, execution)
        refused(mrc(world.sandbox, "approve", execution), "APPROVE_REFUSED", 2)
        refused(mrc(world.sandbox, "abort", execution), "ABORT_REFUSED", 2)
    assert untouched(world) == before


def test_ctrl_c_leaves_the_move_running_and_says_how_to_follow_it(world: World, tmp_path: Path) -> None:
    before = untouched(world)
    told = tmp_path / "stderr"
    with waiting_at_the_fence(world):
        with told.open("w") as stderr:
            asked = command(world.sandbox, "switchover", "west", "--yes")
            following = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=stderr, env=environment())
        try:
            eventually(lambda: "waits: " in told.read_text(), told.read_text)
            following.send_signal(signal.SIGINT)
            assert following.wait(10) == 4
        finally:
            following.kill()
        execution = said(world.sandbox, "history")[0]["id"]
        assert f"still running, execution {execution}; re-attach with `mrc watch {execution}`" in told.read_text()
        assert said(world.sandbox, "history")[0]["status"] == "waiting"
        ended(world, execution)
    assert untouched(world) == before


# ---------------------------------------------------------------- things changed behind mrc's back


def test_a_flow_that_somebody_paused_is_still_measured(world: World) -> None:
    def flow(target: str) -> dict[str, Any]:
        view: dict[str, Any] = {one["target"]: one for one in said(world.sandbox, "lag")}[target]
        assert len(view["partitions"]) == 7
        return view

    def behind(records: float, seconds: float) -> bool:
        """Whether the running flow is behind by at least so much in both; and every reading makes sense."""
        view = flow("west")
        for partition in view["partitions"]:
            assert 0 <= partition["replicated"]["value"] <= partition["source_end"]["value"]
            assert partition["lag_records"]["value"] >= 0
        return bool(view["lag_records"]["value"] >= records and view["lag_seconds"]["value"] >= seconds)

    standing_by = flow("east")
    assert (standing_by["wanted"], standing_by["lag_records"]["value"]) == ("stopped", 0)
    assert sum(partition["source_end"]["value"] for partition in standing_by["partitions"]) > 0
    with world.ground.unchanged():
        world.connect("PUT", "/pause")
        try:
            eventually(lambda: behind(150, 1.5), lambda: flow("west"))
            assert "FLOW_NOT_RUNNING" in refused(mrc(world.sandbox, "switchover", "west", "--yes"), "PLAN_REFUSED", 3)["message"]
        finally:
            world.connect("PUT", "/resume")
        eventually(lambda: not behind(50, 0), lambda: flow("west"))


def test_the_acl_sync_of_the_replicator_forbids_a_move_for_it_copies_refusals(world: World) -> None:
    before = world.connect("GET", "/config")
    refusal = Binding("topic", "orders", "literal", "User:guest", "write", "deny")
    with world.ground.unchanged():
        world.ground.refuse("east", refusal)
        world.connect("PUT", "/config", {**before, "sync.topic.acls.enabled": "true", "sync.topic.acls.interval.seconds": "1"})
        try:
            for _ in range(2):  # it comes back when somebody takes it away
                eventually(lambda: any("User:guest" in binding for binding in world.ground.acls("west")["west"]))
                world.ground.allow("west", refusal)
            eventually(lambda: "ACL_SYNC_ON" in findings(world.sandbox))
            eventually(lambda: world.connect("GET", "/status")["connector"]["state"] == "RUNNING")
            assert "ACL_SYNC_ON" in refused(mrc(world.sandbox, "switchover", "west", "--yes"), "PLAN_REFUSED", 3)["message"]
        finally:
            world.connect("PUT", "/config", before)
            world.ground.allow("east", refusal)

        def gone() -> bool:
            world.ground.allow("west", refusal)  # a last round of the sync may have been under way
            return not any("User:guest" in binding for region in REGIONS for binding in world.ground.acls(region)[region])

        ready(world.sandbox, "west")
        eventually(gone)


def test_a_garbled_active_region_record_is_named_and_left_alone(world: World) -> None:
    acls, before = world.ground.acls(), world.ground.node(RECORD)
    garbled = before[:-5]
    world.ground.write(RECORD, garbled)
    try:
        eventually(lambda: "GARBLED_RECORD" in findings(world.sandbox), lambda: findings(world.sandbox))
        finding = findings(world.sandbox)["GARBLED_RECORD"]
        assert (finding["severity"], finding["where"]) == ("error", "ZooKeeper /mrc/groups/orders/record")
        error = refused(mrc(world.sandbox, "switchover", "west", "--yes"), "GARBLED_RECORD", 1)
        assert error["where"] == "ZooKeeper /mrc/groups/orders/record"
        refused(mrc(world.sandbox, "offsets", "list"), "GARBLED_RECORD", 1)
        assert world.ground.node(RECORD) == garbled
        assert world.ground.acls() == acls
    finally:
        world.ground.write(RECORD, before)
    ready(world.sandbox, "west")
    quiet(world.sandbox)


def test_without_a_quorum_of_zookeeper_status_answers_and_nothing_moves(world: World) -> None:
    before = world.ground.nodes(), world.ground.acls()
    agents = {name: process.pid for name, process in processes.running(world.sandbox.state.folder).items()}
    processes.end(world.sandbox.state.folder, ["west-zookeeper", "witness-zookeeper"], grace_s=0)
    try:
        eventually(lambda: "ZOOKEEPER_UNREACHABLE" in findings(world.sandbox))
        view = said(world.sandbox, "status")
        assert view["record"] is None
        assert [region["kafka"]["type"] for region in view["regions"]] == ["known", "known"]
        assert "east was open, epoch 1" in view["findings"][0]["message"]
        refused(mrc(world.sandbox, "switchover", "west", "--yes"), "ZOOKEEPER_UNREACHABLE", 1)
        refused(mrc(world.sandbox, "failover", "west", "--attest-dead", "--yes"), "ZOOKEEPER_UNREACHABLE", 1)
        assert world.ground.acls() == before[1]
    finally:
        world.sandbox.up()
    ready(world.sandbox, "west")
    assert world.traffic.wait_acked(100, IN_TIME_S, region="east")
    after = {name: process.pid for name, process in processes.running(world.sandbox.state.folder).items() if "zookeeper" not in name}
    assert after.items() <= agents.items()
    assert (world.ground.nodes(), world.ground.acls()) == before
    quiet(world.sandbox)


def test_the_open_region_closes_itself_when_its_agents_have_lost_the_quorum_and_opens_when_it_is_back(world: World) -> None:
    sandbox, settings = world.sandbox, world.sandbox.config_path.read_text()
    before = world.ground.acls()
    sandbox.stop_agents()
    _edit(sandbox, lambda written: written["replication_groups"][0].update(on_quorum_loss="fence", self_fence_after_s=6))
    try:
        sandbox.start_agents()
        ready(sandbox, "west")
        processes.end(sandbox.state.folder, ["west-zookeeper", "witness-zookeeper"], grace_s=0)
        eventually(lambda: "SELF_FENCED" in findings(sandbox))
        refused_there = {binding for binding in world.ground.acls("east")["east"] - before["east"] if "DENY" in binding}
        assert any("User:producer" in binding for binding in refused_there), refused_there
        assert not world.traffic.wait_acked(1, 3.0, region="east")
        sandbox.up()
        eventually(lambda: world.ground.acls() == before, world.ground.acls)
        assert world.traffic.wait_acked(100, IN_TIME_S, region="east")
    finally:
        sandbox.up()
        sandbox.stop_agents()
        sandbox.config_path.write_text(settings)
        sandbox.start_agents()
    ready(sandbox, "west")
    quiet(sandbox)


# ---------------------------------------------------------------- agents that start into trouble

CHECKPOINTS, OFFSET_MAP = "mrc.checkpoints.east.internal", "mrc.offset-map.east.internal"


def test_garbled_records_of_its_own_are_named_and_cost_no_position(world: World) -> None:
    garbled = {
        (CHECKPOINTS, b"no key of mrc"): b"1",
        (CHECKPOINTS, b'["billing","retired",0]'): b"\x00\xff",
        (OFFSET_MAP, b"no key either"): b"2",
        (OFFSET_MAP, b'["orders",0,-1]'): b'{"runs":',
    }
    with world.ground.unchanged():
        world.sandbox.stop_agents("west")
        producer = Producer(world.sandbox.client_config("west", "admin"))
        for (topic, key), value in garbled.items():
            producer.produce(topic, value, key)
        assert producer.flush(10) == 0
        world.sandbox.start_agents("west")
        ready(world.sandbox, "west")
        shown = [f"{one['code']} {one['message']} {one['where']}" for one in status(world.sandbox)["findings"]]
        assert any(line.startswith("GARBLED_RECORD") and "no key of mrc" in line and CHECKPOINTS in line for line in shown), shown
        assert any(line.startswith("GARBLED_RECORD") and "retired" in line for line in shown), shown
        assert any(line.startswith("OFFSET_MAP") and line.endswith("orders-0") for line in shown), shown
        verified: list[dict[str, Any]] = []

        def proved() -> bool:
            # Traffic goes on: what a group has committed a moment ago may have no copy yet, and is unproved until then.
            verified[:] = said(world.sandbox, "offsets", "verify")
            assert "disagrees" not in {one["verdict"] for one in verified}, verified
            return len(verified) == 14 and {one["verdict"] for one in verified} == {"agrees"}

        eventually(proved, lambda: verified)
        kept = last_values(world.sandbox, CHECKPOINTS, OFFSET_MAP)
        for at, value in list(garbled.items())[:3]:
            assert kept[at] == value
        # The map of that partition was made anew from the logs; only its head is written again.
        assert json.loads(kept[OFFSET_MAP, b'["orders",0,-1]'])["resolved_source"] > 0


def last_values(sandbox: Sandbox, *topics: str) -> dict[tuple[str, bytes], bytes]:
    """The last value of every key in topics of one partition, read to their ends."""
    config = {**sandbox.client_config("west", "admin"), "group.id": "e2e-reader", "enable.auto.commit": "false"}
    consumer = Consumer({**config, "auto.offset.reset": "earliest", "enable.partition.eof": "false"})
    found: dict[tuple[str, bytes], bytes] = {}
    try:
        for topic in topics:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)
            consumer.assign([TopicPartition(topic, 0, 0)])
            until_s = time.monotonic() + IN_TIME_S
            position = 0
            while position < end:
                assert time.monotonic() < until_s
                for message in consumer.consume(1000, 0.2):
                    assert message.error() is None
                    position = (message.offset() or 0) + 1
                    found[topic, message.key() or b""] = message.value() or b""
    finally:
        consumer.close()
    return found


def test_an_application_that_is_a_super_user_forbids_a_move(world: World) -> None:
    def declare(written: dict[str, Any]) -> None:
        for region in written["regions"].values():
            region["kafka"]["super_users"].append("User:producer")

    with world.ground.unchanged(), configured(world, declare):
        eventually(lambda: "SUPER_USER" in findings(world.sandbox))
        eventually(lambda: planned_without(world.sandbox, "CAPTURE_BEHIND"))
        error = refused(mrc(world.sandbox, "switchover", "west", "--yes"), "PLAN_REFUSED", 3)
        assert "SUPER_USER: User:producer is a super user" in error["message"]


def test_a_wrong_password_is_called_one_everywhere(world: World) -> None:
    wrong = world.sandbox.state.folder / "secrets" / "wrong"
    wrong.write_text("wrong")

    def mistake(written: dict[str, Any]) -> None:
        written["regions"]["west"]["kafka"]["security"]["password_file"] = "secrets/wrong"

    def west() -> dict[str, Any]:
        view = next(region for region in said(world.sandbox, "status")["regions"] if region["region"] == "west")
        reading: dict[str, Any] = view["kafka"]
        return reading

    with world.ground.unchanged(), configured(world, mistake):
        eventually(lambda: west().get("reason") == "authentication-failed", west)
        eventually(lambda: "AUTHENTICATION_FAILED" in findings(world.sandbox), lambda: findings(world.sandbox))
        finding = findings(world.sandbox)["AUTHENTICATION_FAILED"]
        assert (finding["severity"], finding["where"]) == ("error", "west")
        refused(mrc(world.sandbox, "switchover", "west", "--yes"), "AUTHENTICATION_FAILED", 1)
        log = world.sandbox.log_path(leader(world.sandbox, "west")).read_text()
        assert "AUTHENTICATION_FAILED" in log
        assert "Traceback" not in log


# ---------------------------------------------------------------- a fence


def test_a_fence_refuses_every_writer_until_a_person_lets_the_region_open_again(world: World) -> None:
    acls = world.ground.acls()
    epoch = json.loads(world.ground.node(RECORD))["epoch"]
    execution = begun(world.sandbox, "fence", "--reason", "garbage")

    def in_force() -> bool:
        view = said(world.sandbox, "history")[0]
        assert view["status"] in ("running", "waiting"), view
        return str(view["waits_for"]) == "approval of step reopen-source"

    eventually(in_force, lambda: said(world.sandbox, "history")[0])
    record = json.loads(world.ground.node(RECORD))
    assert (record["region"], record["state"], record["epoch"]) == ("east", "draining", epoch)
    assert [written_to(world.sandbox, region) for region in REGIONS] == ["TOPIC_AUTHORIZATION_FAILED"] * 2
    again = mrc(world.sandbox, "fence", "--yes")
    assert execution in refused(again, "MOVE_IN_PROGRESS", 2)["message"]
    assert f"mrc approve {execution}" in refused(mrc(world.sandbox, "switchover", "west", "--yes"), "MOVE_IN_PROGRESS", 2)["message"]
    assert mrc(world.sandbox, "approve", execution, "--reason", "mended").returncode == 0
    assert mrc(world.sandbox, "watch", execution).returncode == 0
    record = json.loads(world.ground.node(RECORD))
    assert (record["region"], record["state"], record["epoch"]) == ("east", "open", epoch + 1)
    eventually(lambda: written_to(world.sandbox, "east") == "")
    assert written_to(world.sandbox, "west") == "TOPIC_AUTHORIZATION_FAILED"
    assert world.traffic.wait_acked(100, IN_TIME_S, region="east")
    assert world.ground.acls() == acls
    ready(world.sandbox, "west")


# ---------------------------------------------------------------- a region dies (nothing may come after this)


def test_a_dead_region_is_shown_with_its_age_and_no_switchover_leaves_it(world: World) -> None:
    before = world.ground.acls("west")
    world.sandbox.kill("east")

    view: dict[str, Any] = {}

    def east() -> dict[str, Any]:
        """What one agent's status reads of the dead region's Kafka: another agent, or the capture, may have noticed its silence before."""
        view.update(said(world.sandbox, "status"))
        reading: dict[str, Any] = next(region for region in view["regions"] if region["region"] == "east")["kafka"]
        return reading

    eventually(lambda: east().get("reason") == "cluster-unreachable", lambda: view)
    since_ms = next(region for region in view["regions"] if region["region"] == "east")["kafka"]["since_ms"]
    assert 0 < view["at_ms"] - since_ms < 30_000
    assert "CLUSTER_UNREACHABLE" in {finding["code"] for finding in view["findings"]}
    eventually(lambda: "CLUSTER_UNREACHABLE" in mrc(world.sandbox, "plan", "switchover", "west").stdout)  # its leader has seen it, too
    nodes = world.ground.nodes()
    refused(mrc(world.sandbox, "switchover", "west", "--yes"), "CLUSTER_UNREACHABLE", 1)
    refused(mrc(world.sandbox, "switchover", "east", "--yes"), "AGENT_UNREACHABLE", 1)
    flows = {view["target"]: view for view in said(world.sandbox, "lag")}
    assert (flows["west"]["lag_records"]["reason"], flows["east"]["lag_records"]["reason"]) == ("cluster-unreachable", "agent-unreachable")
    assert "since" in flows["west"]["rpo"]
    assert world.ground.nodes() == nodes
    assert world.ground.acls("west") == before
