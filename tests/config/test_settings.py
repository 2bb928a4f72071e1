"""`mrc.yaml`: what a good file means, and that every error is found, located and explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.config import check, load
from mrc.config.settings import SESSION_TIMEOUT_MS_MIN
from mrc.core.errors import MrcError
from mrc.core.model import Flow, Region
from mrc.ports import CALL_DEADLINE_S, RENEW_EVERY_S
from mrc.sim.clock import FakeClock, FakeHook
from mrc.sim.tree import TreeStore
from mrc.wiring.estates import routes, unit
from tests.config.example import PASSWORD, ROUTED_BY_DNS, ROUTED_BY_HAPROXY, TSIG_SECRET, line_of, write_example


def test_a_good_file_loads_with_its_defaults(tmp_path: Path) -> None:
    settings = load(write_example(tmp_path))
    group = settings.replication_group()
    assert (settings.zookeeper.root, settings.zookeeper.session_timeout_ms) == ("/mrc", 4000)
    assert settings.base == tmp_path
    assert settings.regions["east"].kafka.remote == "127.0.0.1:9192"
    assert settings.regions["west"].kafka.remote == "127.0.0.1:9093"
    assert [flow.flow for flow in group.flows] == [Flow(Region("east"), Region("west")), Flow(Region("west"), Region("east"))]
    assert group.objectives.rpo_s == 5
    assert group.runbooks is None
    assert (group.on_quorum_loss, unit(group).self_fence_after_s) == ("keep", None)


def test_agents_fence_themselves_only_where_the_file_says_so(tmp_path: Path) -> None:
    changes = {"    mode: active-passive": "    on_quorum_loss: fence\n    self_fence_after_s: 20\n    mode: active-passive"}
    assert unit(load(write_example(tmp_path, changes)).replication_group()).self_fence_after_s == 20
    late = {"    mode": "    self_fence_after_s: 1\n    mode"}
    assert unit(load(write_example(tmp_path, late)).replication_group()).self_fence_after_s is None


def test_paths_are_relative_to_the_file_and_not_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_example(tmp_path, {"probe: {": "runbooks: books\n    probe: {"})
    (tmp_path / "books").mkdir()
    monkeypatch.chdir("/")
    group = load(path).replication_group("orders")
    assert group.runbooks == tmp_path / "books"
    assert group.routing is not None
    assert group.routing.command == (str(tmp_path / "flip"), "--region")


def test_a_program_without_a_slash_is_looked_up_on_the_path(tmp_path: Path) -> None:
    group = load(write_example(tmp_path, {'"./flip"': "flip"})).replication_group()
    assert group.routing is not None
    assert group.routing.command is not None
    assert group.routing.command[0] == "flip"


def test_a_password_is_read_when_asked_for_and_never_shown(tmp_path: Path) -> None:
    settings = load(write_example(tmp_path))
    password = settings.regions["east"].kafka.security.password()
    assert password.reveal() == PASSWORD
    assert PASSWORD not in f"{password} {password!r} {settings!r}"
    (tmp_path / "secrets" / "mrc").write_text("changed")
    assert settings.regions["east"].kafka.security.password().reveal() == "changed"


def test_routes_are_what_the_file_says_and_the_key_of_the_name_server_is_never_shown(tmp_path: Path) -> None:
    settings = load(write_example(tmp_path, dns("", "")))
    routing = settings.replication_group().routing
    assert routing is not None
    assert routing.producers == "unknown"
    assert routing.dns[0].address == ("192.0.2.53", 53)
    key = routing.dns[0].key()
    assert (key.name, key.algorithm, key.secret.reveal()) == ("mrc.", "hmac-sha256", TSIG_SECRET)
    assert TSIG_SECRET not in f"{key} {key!r} {settings!r}"
    (tmp_path / "secrets" / "dns.key").write_text(f'key "mrc" {{ secret "{TSIG_SECRET}"; }}')
    with pytest.raises(MrcError) as caught:
        routing.dns[0].key()
    assert TSIG_SECRET not in str(caught.value)
    one = unit(settings.replication_group())
    assert one.carries_producers
    assert [route.name for route in routes(routing, one.regions, FakeHook())] == ["dns Kafka.example.com. A at 192.0.2.53:53"]


def test_a_command_that_is_read_back_is_a_route_and_one_that_is_not_is_a_hook(tmp_path: Path) -> None:
    folder = {'{command: ["./flip", "--region"]}': '{producers: not-idempotent, command: ["./flip"], read_back: ["./flip", "--show"]}'}
    group = load(write_example(tmp_path, folder)).replication_group()
    assert group.routing is not None
    assert group.routing.read_back == (str(tmp_path / "flip"), "--show")
    assert not unit(group).carries_producers
    assert [route.name for route in routes(group.routing, unit(group).regions, FakeHook())] == [f"command {tmp_path / 'flip'}"]
    plain = load(write_example(tmp_path)).replication_group()
    assert routes(plain.routing, unit(plain).regions, FakeHook()) == ()
    assert unit(plain).carries_producers


def test_a_password_file_that_vanished_is_named(tmp_path: Path) -> None:
    settings = load(write_example(tmp_path))
    (tmp_path / "secrets" / "probe").unlink()
    probe = settings.replication_group().probe
    assert probe is not None
    with pytest.raises(MrcError) as caught:
        probe.password()
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.where.endswith("secrets/probe")


THIRD = """\
  north:
    kafka: {bootstrap: "127.0.0.1:9094"}
    connect: {url: "http://127.0.0.1:8085"}
    agents: [{id: north-a, grpc: "127.0.0.1:7021", metrics: "127.0.0.1:7121"}]
replication_groups:"""

TO_THIRD = """\
      - {source: east, target: north, connector: mrc.orders.east-north}
      - {source: north, target: east, connector: mrc.orders.north-east}
"""

ROUTING = "replication_groups[0].routing"
DNS, PROXY = f"{ROUTING}.dns[0]", f"{ROUTING}.haproxy[0]"


def dns(old: str, new: str) -> dict[str, str]:
    return {'    routing: {command: ["./flip", "--region"]}\n': ROUTED_BY_DNS.replace(old, new)}


def haproxy(old: str, new: str) -> dict[str, str]:
    return {'    routing: {command: ["./flip", "--region"]}\n': ROUTED_BY_HAPROXY.replace(old, new)}


CASES: dict[str, tuple[dict[str, str], str, str, list[str]]] = {
    "misspelt key": (
        {"bootstrap: 127.0.0.1:9092": "bootstrp: 127.0.0.1:9092"},
        "bootstrp",
        "regions.east.kafka.bootstrp",
        ["did you mean bootstrap?"],
    ),
    "missing key": ({"    policy: identity\n": ""}, "- name: orders", "replication_groups[0].policy", ["missing", "identity or default"]),
    "word not allowed": (
        {"active-passive": "activ-pasive"},
        "mode:",
        "replication_groups[0].mode",
        ["did you mean active-passive?", "active-active"],
    ),
    "wrong type": ({"rpo_s: 5": "rpo_s: soon"}, "rpo_s", "replication_groups[0].objectives.rpo_s", ["a number", "more than 0", "'soon'"]),
    "out of bounds": (
        {"zookeeper:": "zookeeper:\n  session_timeout_ms: 3000"},
        "session_timeout_ms",
        "zookeeper.session_timeout_ms",
        ["at least 3750", "got 3000", "lease", "has to outlast a call"],
    ),
    "a self-fence sooner than the lead changes hands": (
        {"    mode: active-passive": "    on_quorum_loss: fence\n    self_fence_after_s: 4\n    mode: active-passive"},
        "self_fence_after_s",
        "replication_groups[0].self_fence_after_s",
        ["4 is not more than the session time-out", "4 s"],
    ),
    "a self-fence where every region is open": (
        {
            "    mode: active-passive\n    policy: identity": "    on_quorum_loss: fence\n    mode: active-active\n    policy: default",
        },
        "on_quorum_loss",
        "replication_groups[0].on_quorum_loss",
        ["allowed: keep"],
    ),
    "a copy among the topics": (
        {"policy: identity": "policy: default", "topics: [orders, payments]": "topics: [orders, payments, west.orders]"},
        "topics:",
        "replication_groups[0].topics[2]",
        ["west.orders is MirrorMaker's copy of orders of west", "list orders alone"],
    ),
    "wrong version": ({"version: 1": "version: 2"}, "version", "version", ["allowed: 1"]),
    "duplicate key": (
        {"policy: identity": "policy: identity\n    policy: default"},
        "policy: default",
        "replication_groups[0].policy",
        ["twice"],
    ),
    "key is no text": ({"  west:": "  on:"}, "  on:", "regions.on", ["in quotes"]),
    "the loader's own field": ({"version: 1": "version: 1\nbase: /"}, "base", "base", ["unknown key"]),
    "empty list": ({"topics: [orders, payments]": "topics: []"}, "topics", "replication_groups[0].topics", ["at least 1"]),
    "list expected": (
        {"groups: [billing, shipping]": "groups: billing"},
        "groups: billing",
        "replication_groups[0].groups",
        ["a list", "'billing'"],
    ),
    "mapping expected": (
        {'connect: {url: "http://127.0.0.1:8083"}': "connect: here"},
        "connect: here",
        "regions.east.connect",
        ["a mapping"],
    ),
    "bad region name": ({"  west:": "  we.st:"}, "we.st", "regions.we.st", ["like"]),
    "bad address": ({'grpc: "127.0.0.1:7001"': 'grpc: "127.0.0.1:70010"'}, "70010", "regions.east.agents[0].grpc", ["host:port"]),
    "address without port": ({"127.0.0.1:2182": "zk2"}, "zk2", "zookeeper.connect", ["'zk2'", "host:port"]),
    "no url": ({"http://127.0.0.1:8083": "127.0.0.1:8083"}, "8083", "regions.east.connect.url", ["http://"]),
    "open to the network": (
        {'grpc: "127.0.0.1:7001"': 'grpc: "0.0.0.0:7001"'},
        "0.0.0.0",
        "regions.east.agents[0].grpc",
        ["loopback", "tls"],
    ),
    "agent id twice": ({"id: west-a": "id: east-a"}, "7011", "regions.west.agents[0].id", ["agent id east-a", "twice"]),
    "address twice": ({"127.0.0.1:7011": "127.0.0.1:7101"}, "west-a", "regions.west.agents[0].grpc", ["twice"]),
    "sasl without user": ({"username: mrc, ": ""}, "SASL_PLAINTEXT", "regions.east.kafka.security.username", ["SASL_PLAINTEXT needs it"]),
    "user without sasl": ({"SASL_PLAINTEXT": "PLAINTEXT"}, "security", "regions.east.kafka.security.mechanism", ["no use"]),
    "password file missing": (
        {"secrets/mrc": "secrets/gone"},
        "secrets/gone",
        "regions.east.kafka.security.password_file",
        ["No such file"],
    ),
    "unknown region": (
        {"target: west, connector": "target: wets, connector"},
        "wets",
        "replication_groups[0].flows[0].target",
        ["did you mean west?", "east, west"],
    ),
    "a flow to itself": (
        {"source: west, target: east": "source: west, target: west"},
        "target: west, connector: mrc.orders.west",
        "replication_groups[0].flows[1].target",
        ["same region"],
    ),
    "no way back": (
        {"      - {source: west, target: east, connector: mrc.orders.west-east}\n": ""},
        "east-west",
        "replication_groups[0].flows[0]",
        ["west->east"],
    ),
    "connector twice": (
        {"mrc.orders.west-east": "mrc.orders.east-west"},
        "source: west",
        "replication_groups[0].flows[1].connector",
        ["twice"],
    ),
    "would loop": (
        {"mode: active-passive": "mode: active-active"},
        "policy",
        "replication_groups[0].policy",
        ["would loop", "allowed: default"],
    ),
    "internal topic": ({"payments]": "x.internal]"}, "x.internal", "replication_groups[0].topics[1]", [".internal"]),
    "topic twice": ({"payments]": "orders]"}, "topics", "replication_groups[0].topics[1]", ["topic orders is there twice"]),
    "fenced and exempt": ({'"User:producer"': '"User:mm2"'}, "writers", "replication_groups[0].principals.writers[0]", ["exempt"]),
    "fences everybody": ({'"User:producer"': '"User:*"'}, "writers", "replication_groups[0].principals.writers[0]", ["replicator"]),
    "fenced replicator": (
        {'exempt: ["User:mm2", "User:mrc"]': 'replicators: ["User:producer"]'},
        "writers",
        "replication_groups[0].principals.writers[0]",
        ["User:producer is the replicator too"],
    ),
    "replicator's probe": (
        {'exempt: ["User:mm2", "User:mrc"]': 'replicators: ["User:probe"]'},
        "probe: {username",
        "replication_groups[0].probe.username",
        ["User:probe is the replicator too", "could prove none"],
    ),
    "exempt probe": (
        {"probe: {username: probe": "probe: {username: mm2"},
        "probe: {username",
        "replication_groups[0].probe.username",
        ["User:mm2 is exempt too", "could prove none"],
    ),
    "three regions": (
        {"replication_groups:": THIRD, "    objectives:": TO_THIRD + "    objectives:"},
        "east-north",
        "replication_groups[0].flows[2].target",
        ["north is one region too many", "east and west"],
    ),
    "a region of no flow": ({"replication_groups:": THIRD}, "  north:", "regions.north", ["no flow begins or ends in north"]),
    "nobody redirected": (
        {'{command: ["./flip", "--region"]}': "{producers: mrc.client}"},
        "routing:",
        ROUTING,
        ["redirects nobody", "dns"],
    ),
    "nothing to read back": (
        {"command: [": "haproxy: [{address: /s, backend: b, servers: {east: [e], west: [w]}}], read_back: ["},
        "routing:",
        f"{ROUTING}.read_back",
        ["no command"],
    ),
    "a name server by its name": (dns("192.0.2.53:53", "ns.example:53"), "server:", f"{DNS}.server", ["address:port", "look-up"]),
    "a name outside of its zone": (
        dns("zone: example.com", "zone: example.org"),
        "name: Kafka",
        f"{DNS}.name",
        ["is not in zone example.org"],
    ),
    "no such region": (dns("west: [", "wets: ["), "values:", f"{DNS}.values", ["west is missing"]),
    "an address that is none": (dns("198.51.100.1", "300.1.1.1"), "values:", f"{DNS}.values.west[0]", ["record of type A"]),
    "the same in both regions": (dns("[198.51.100.1]", "[192.0.2.2, 192.0.2.1]"), "values:", f"{DNS}.values", ["the same values"]),
    "no key": (dns("secrets/dns.key", "secrets/mrc"), "key_file:", f"{DNS}.key_file", ["not a TSIG key", "algorithm hmac-sha256"]),
    "a cut secret": (dns("secrets/dns.key", "secrets/cut.key"), "key_file:", f"{DNS}.key_file", ["not base64"]),
    "an old algorithm": (dns("secrets/dns.key", "secrets/old.key"), "key_file:", f"{DNS}.key_file", ["hmac-md5", "hmac-sha224"]),
    "a command in a server's name": (haproxy("e1", '"e1; quit"'), "servers:", f"{PROXY}.servers.east[0]", ["e1; quit"]),
    "a server of both regions": (haproxy("w1", "e1"), "servers:", f"{PROXY}.servers.west[0]", ["e1 belongs to east already"]),
    "no socket": (haproxy("/run/haproxy.sock", "haproxy.sock"), "address:", f"{PROXY}.address", ["path of a socket"]),
    "no runbooks": ({"probe: {": "runbooks: nowhere\n    probe: {"}, "nowhere", "replication_groups[0].runbooks", ["nowhere"]),
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_names_line_key_and_what_is_allowed(case: str, tmp_path: Path) -> None:
    changes, text, key, said = CASES[case]
    path = write_example(tmp_path, changes)
    with pytest.raises(MrcError) as caught:
        load(path)
    problems = check(path)[1]
    assert (caught.value.code, caught.value.where) == ("CONFIG_INVALID", problems[0].where)
    problem = next(problem for problem in problems if problem.key == key)
    assert problem.where == f"{path}:{line_of(text, path)} {key}"
    for words in said:
        assert words in problem.message


def test_the_least_session_time_out_gives_a_lease_that_outlasts_every_call_of_an_agent(tmp_path: Path) -> None:
    settings = load(write_example(tmp_path, {"zookeeper:": f"zookeeper:\n  session_timeout_ms: {SESSION_TIMEOUT_MS_MIN}"}))
    store = TreeStore(FakeClock(), settings.zookeeper.session_timeout_ms / 1000)
    tree = store.connect()
    tree.get("/")
    store.clock.sleep(CALL_DEADLINE_S + RENEW_EVERY_S - 0.01)
    assert tree.lease_s() > 0


def test_every_error_is_reported_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    path = write_example(tmp_path, {"version: 1": "versoin: 1", "rpo_s: 5": "rpo_s: x", "mode: active-passive": "mode: none"})
    problems = check(path)[1]
    assert [problem.key for problem in problems] == [
        "versoin",
        "version",
        "replication_groups[0].mode",
        "replication_groups[0].objectives.rpo_s",
    ]
    with pytest.raises(MrcError) as caught:
        load(path)
    for problem in problems[1:]:
        assert f"also {problem.where}: {problem.message}" in caught.value.message


def test_errors_between_fields_are_reported_at_once_too(tmp_path: Path) -> None:
    path = write_example(tmp_path, {"127.0.0.1:7001": "10.0.0.1:7001", "target: west,": "target: wets,", "secrets/mrc": "gone"})
    assert {problem.key.rpartition(".")[2] for problem in check(path)[1]} >= {"grpc", "target", "password_file"}


def test_tls_lets_agents_leave_loopback(tmp_path: Path) -> None:
    tls = "version: 1\ngrpc: {tls: {cert_file: secrets/mrc, key_file: secrets/mrc, ca_file: secrets/mrc}}"
    assert check(write_example(tmp_path, {"version: 1": tls, "127.0.0.1:7001": "0.0.0.0:7001"}))[1] == ()


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "not YAML"), ("a: *b", "not YAML"), ("- 1", "a mapping"), ("", "missing"), ("\x00", "not YAML")]
)
def test_what_is_no_configuration_at_all_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mrc.yaml"
    path.write_text(text)
    with pytest.raises(MrcError, match=said) as caught:
        load(path)
    assert caught.value.code == "CONFIG_INVALID"


def test_a_file_that_would_eat_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mrc.yaml"
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))]
    path.write_text("\n".join(laughs))
    assert "too large" in check(path)[1][0].message
    path.write_text("a: &a [*a]")
    assert "too deeply" in check(path)[1][0].message


def test_a_missing_file_has_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(MrcError) as caught:
        load(tmp_path / "none.yaml")
    assert caught.value.code == "CONFIG_NOT_FOUND"


def test_an_unknown_replication_group_or_region_is_answered_with_those_there_are(tmp_path: Path) -> None:
    settings = load(write_example(tmp_path))
    with pytest.raises(MrcError, match="configured: orders") as group:
        settings.replication_group("order")
    with pytest.raises(MrcError, match="configured: east, west") as region:
        settings.region("north")
    assert (group.value.code, region.value.code) == ("UNKNOWN_REPLICATION_GROUP", "UNKNOWN_REGION")


def test_one_of_several_replication_groups_must_be_named(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    start = path.read_text().index("  - name: orders")
    second = path.read_text()[start:].replace("orders", "stock").replace("payments", "shelves")
    second = second.replace("billing", "depot").replace("shipping", "packing")
    path.write_text(path.read_text() + second)
    settings = load(path)
    assert settings.replication_group("stock").topics == ("stock", "shelves")
    with pytest.raises(MrcError, match="several"):
        settings.replication_group()


def test_a_third_region_is_named_once_and_may_belong_to_another_replication_group(tmp_path: Path) -> None:
    path = write_example(tmp_path, {"replication_groups:": THIRD, "    objectives:": TO_THIRD + "    objectives:"})
    assert [problem.key for problem in check(path)[1]] == ["replication_groups[0].flows[2].target"]
    path = write_example(tmp_path, {"replication_groups:": THIRD})
    start = path.read_text().index("  - name: orders")
    second = path.read_text()[start:].replace("orders", "stock").replace("payments", "shelves").replace("west", "north")
    second = second.replace("billing", "depot").replace("shipping", "packing")
    path.write_text(path.read_text() + second)
    assert check(path)[1] == ()


def test_a_consumer_group_of_two_replication_groups_is_refused(tmp_path: Path) -> None:
    path = write_example(tmp_path, {})
    start = path.read_text().index("  - name: orders")
    path.write_text(path.read_text() + path.read_text()[start:].replace("orders", "stock").replace("payments", "shelves"))
    first = check(path)[1][0]
    assert first.key == "replication_groups[1].groups[0]"
    assert "belongs to orders already" in first.message
