"""What the sandbox writes for brokers, Connect, ZooKeeper and mrc."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal, cast

import msgspec
import pytest
from confluent_kafka.admin import AclOperation, AclPermissionType, ResourceType

from mrc.config import load
from mrc.sandbox import connect, estate, kafka, zookeeper
from mrc.sandbox.layout import Layout, Options, State, other, sites

Policy = Literal["identity", "default"]


def parsed(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def made(state: State, **options: object) -> Layout:
    return state.make(Options(**options))  # type: ignore[arg-type]


def test_brokers_deny_by_default_and_no_application_is_a_super_user(state: State) -> None:
    settings = parsed(kafka.properties(made(state), state, "east", 1))
    assert settings["allow.everyone.if.no.acl.found"] == "false"
    assert settings["super.users"] == "User:broker;User:admin"


def test_other_regions_have_a_listener_of_their_own(state: State) -> None:
    layout = made(state)
    settings = parsed(kafka.properties(layout, state, "east", 1))
    assert f"REMOTE://{layout.bootstrap('east', 'remote')}" in settings["advertised.listeners"]
    assert "CONTROLLER" not in settings["advertised.listeners"]
    into_west = connect.connectors(layout, state, "west")["mrc.orders.east-west"]
    assert into_west["source.cluster.bootstrap.servers"] == layout.bootstrap("east", "remote")
    assert into_west["target.cluster.bootstrap.servers"] == layout.bootstrap("west")


def test_three_brokers_vote_together_and_keep_three_copies(state: State) -> None:
    layout = made(state, brokers=3)
    for node in (1, 2, 3):
        settings = parsed(kafka.properties(layout, state, "west", node))
        assert [voter.partition("@")[0] for voter in settings["controller.quorum.voters"].split(",")] == ["1", "2", "3"]
        assert (settings["node.id"], settings["default.replication.factor"]) == (str(node), "3")
    assert parsed(connect.worker_properties(layout, state, "west"))["offset.storage.replication.factor"] == "3"


def test_the_worker_passes_bytes_through(state: State) -> None:
    settings = parsed(connect.worker_properties(made(state), state, "west"))
    for part in ("key", "value", "header"):
        assert settings[f"{part}.converter"].endswith(".ByteArrayConverter")


@pytest.mark.parametrize("exactly_once", [False, True])
def test_exactly_once_is_asked_of_the_worker(state: State, *, exactly_once: bool) -> None:
    settings = parsed(connect.worker_properties(made(state, mm2_exactly_once=exactly_once), state, "west"))
    assert settings.get("exactly.once.source.support") == ("enabled" if exactly_once else None)


@pytest.mark.parametrize(("policy", "named"), [("identity", "IdentityReplicationPolicy"), ("default", "DefaultReplicationPolicy")])
def test_connectors_leave_acls_and_positions_to_mrc(state: State, policy: Policy, named: str) -> None:
    both = connect.connectors(made(state, policy=policy), state, "east")
    assert sorted(both) == ["mrc.orders.west-east", "mrc.orders.west-east.checkpoint"]
    source, checkpoint = both["mrc.orders.west-east"], both["mrc.orders.west-east.checkpoint"]
    assert source["sync.topic.acls.enabled"] == "false"
    assert int(source["refresh.topics.interval.seconds"]) >= 60
    assert source["source.consumer.isolation.level"] == "read_committed"
    assert checkpoint["sync.group.offsets.enabled"] == "false"
    for connector in both.values():
        assert connector["replication.policy.class"].endswith(named)
        assert connector["offset-syncs.topic.location"] == "target"


def test_every_grant_is_an_allow_for_a_named_user(state: State) -> None:
    for binding in kafka.bindings(made(state), "east"):
        assert binding.permission_type == AclPermissionType.ALLOW
        assert binding.principal in {f"User:{user}" for user in ("mm2", "mrc", "producer", "consumer", "probe")}


def test_applications_can_do_to_topics_what_they_are_for_and_no_more(state: State) -> None:
    layout = made(state, policy="default")
    topics: dict[tuple[str, object], set[str]] = {}
    for binding in kafka.bindings(layout, "east"):
        if binding.restype == ResourceType.TOPIC:
            topics.setdefault((binding.principal, binding.operation), set()).add(binding.name)
    own = {"orders", "payments"}
    assert topics["User:producer", AclOperation.WRITE] == own
    assert topics["User:probe", AclOperation.WRITE] == own
    assert topics["User:consumer", AclOperation.READ] == own | {"west.orders", "west.payments"}
    assert ("User:producer", AclOperation.READ) not in topics
    assert ("User:consumer", AclOperation.WRITE) not in topics


def test_a_session_of_mrcs_length_can_be_had(state: State) -> None:
    layout = made(state)
    for site in sites():
        settings = parsed(zookeeper.zoo_cfg(layout, state, site))
        assert int(settings["minSessionTimeout"]) <= 4000 <= int(settings["maxSessionTimeout"])
        assert [settings[f"server.{number}"].partition(":")[0] for number in (1, 2, 3)] == ["127.0.0.1"] * 3


@pytest.mark.parametrize("policy", ["identity", "default"])
def test_mrc_reads_the_configuration_that_is_written(state: State, policy: Policy) -> None:
    layout = made(state, policy=policy)
    estate.write(layout, state)
    settings = load(state.config)
    assert settings.regions["east"].kafka.bootstrap_remote == layout.bootstrap("east", "remote")
    assert settings.replication_group(None).policy == policy
    assert {flow.connector for flow in settings.replication_group(None).flows} == {
        connect.flow_connector(region, other(region)) for region in ("east", "west")
    }
    assert [agent.id for agent in settings.regions["west"].agents] == ["west-a", "west-b"]


def test_an_edited_configuration_stays(state: State) -> None:
    layout = made(state)
    state.config.write_text("edited")
    estate.write(layout, state)
    assert state.config.read_text() == "edited"


FLOW = "mrc.orders.east-west"
NAMES = (FLOW, f"{FLOW}{connect.CHECKPOINT}")


def told(state: str, *tasks: str, of: int | None = None) -> dict[str, object]:
    """What Connect says of a connector with so many tasks, these of which have a status."""
    info = {"name": "any", "config": {}, "type": "source", "tasks": [{"connector": "any", "task": n} for n in range(of or len(tasks))]}
    statuses = [{"id": n, "state": task, "worker_id": "w"} for n, task in enumerate(tasks)]
    return {"status": {"name": "any", "connector": {"state": state, "worker_id": "w"}, "tasks": statuses, "type": "source"}, "info": info}


@pytest.mark.parametrize(
    ("source", "checkpoint", "waits"),
    [
        (told("RUNNING", "RUNNING", "RUNNING"), told("RUNNING"), []),
        (told("STOPPED"), told("STOPPED"), []),
        (None, None, list(NAMES)),
        (told("RUNNING", "RUNNING", "RUNNING"), None, [NAMES[1]]),
        (told("RUNNING"), told("RUNNING"), [FLOW]),
        (told("RUNNING", "RUNNING", of=2), told("RUNNING"), [FLOW]),
        (told("RUNNING", "RUNNING", "UNASSIGNED"), told("RUNNING", of=1), list(NAMES)),
        (told("STOPPED", "RUNNING"), told("STOPPED"), [FLOW]),
    ],
)
def test_a_flow_has_settled_only_when_connect_tells_of_all_its_connectors_and_all_their_tasks(
    source: dict[str, object] | None, checkpoint: dict[str, object] | None, waits: list[str]
) -> None:
    answered = {name: one for name, one in zip(NAMES, (source, checkpoint), strict=True) if one is not None}
    assert connect.unsettled(NAMES, msgspec.convert(answered, dict[str, connect.Entry])) == waits


class _Connect(http.server.BaseHTTPRequestHandler):
    """A Connect of which one connector has a failed task."""

    asked: ClassVar[list[str]] = []

    def _answer(self, what: object) -> None:
        body = msgspec.json.encode(what)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        def told(*states: str) -> dict[str, object]:
            tasks = [{"id": number, "state": state, "trace": "x"} for number, state in enumerate(states)]
            return {"status": {"connector": {"state": "RUNNING"}, "tasks": tasks}, "info": {"tasks": [{} for _ in states]}}

        self._answer({"well": told("RUNNING"), "ill": told("RUNNING", "FAILED"), "stopped": told()})

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self._answer({})

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_failed_tasks_alone_are_started_again() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Connect) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            layout = cast(Layout, SimpleNamespace(connect_url=lambda target: f"http://127.0.0.1:{server.server_port}"))
            assert connect.restart_failed(layout, "east") == ["ill"]
        finally:
            server.shutdown()
    assert _Connect.asked == ["/connectors/ill/restart?includeTasks=true&onlyFailed=true"]
