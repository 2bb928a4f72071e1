"""``mrc conflicts`` and ``mrc rules dry-run`` as their users run them, on regions in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mrc.cli.main import run
from mrc.config import load
from mrc.control.dockets import AgentsDocket
from mrc.control.server import Server
from mrc.core.conflict.headers import WALL_MS_MAX
from mrc.core.conflict.story import Told
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Arrived, Span
from mrc.resolver.audit import Filter, News
from mrc.sim.streams import FakeLogs
from mrc.wiring import conflicts as wiring
from mrc.wiring.conflicts import AgentDockets
from mrc.wiring.resolver import kinds_of
from tests.config.example import write_example
from tests.control.estate import Agent, World
from tests.resolver.pair import Pair

RULES = (Path(__file__).parents[2] / "docs" / "examples" / "conflicts.yaml").read_text()
ACTIVE = {"mode: active-passive": "mode: active-active\n    rules: conflicts.yaml", "policy: identity": "policy: default"}

CANCELLED_AND_SHIPPED = (
    Told("e1", "east", "Placed"),
    Told("e2", "east", "Cancelled"),
    Told("w1", "west", "Shipped", seen=("e1",)),
)
REFUNDED = (Told("r1", "east", "Refunded"), Told("d1", "west", "Delivered"))


class Estate:
    """A configuration, and its two regions in memory."""

    def __init__(self, folder: Path) -> None:
        (folder / "conflicts.yaml").write_text(RULES)
        self.folder = folder
        self.path = write_example(folder, ACTIVE)
        settings = load(self.path)
        (kind,) = kinds_of(settings, settings.replication_groups[0])
        self.pair = Pair(kind)

    def run(self, *arguments: str) -> int:
        return run(["--config", str(self.path), *arguments])


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estate:
    """Two regions that have decided about order 17 and wait for a person about order 18."""
    monkeypatch.setenv("COLUMNS", "200")
    made = Estate(tmp_path)
    made.pair.instead_of_kafka(monkeypatch)
    made.pair.tell("17", CANCELLED_AND_SHIPPED)
    made.pair.tell("18", REFUNDED)
    made.pair.settle()
    return made


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def conflict_of(estate: Estate, capsys: pytest.CaptureFixture[str], key: str) -> dict[str, Any]:
    assert estate.run("-o", "json", "conflicts", "list", "--entity", key) == 0
    found: list[dict[str, Any]] = answer(capsys)
    return found[0]


def test_the_newest_conflicts_are_listed_in_either_region(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    for region in ("east", "west"):
        assert estate.run("-o", "json", "conflicts", "list", "--region", region) == 0
        rows = answer(capsys)
        assert {(row["key"], row["rule"], row["winner"], row["outcome"]) for row in rows} == {
            ("17", "shipped-beats-cancelled", "17-w1", "west"),
            ("18", "refunds-by-hand", "18-d1", "open"),
        }
    assert estate.run("conflicts", "list", "--outcome", "open") == 0
    shown = capsys.readouterr().out
    assert "east Refunded / west Delivered" in shown
    assert "west Delivered until a person decides" in shown
    assert "order/17" not in shown
    assert estate.run("conflicts", "list", "--since", "1h") == 0
    assert "no conflict is like that" in capsys.readouterr().err


def test_one_is_explained_with_both_sides_every_step_and_both_regions(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    id = conflict_of(estate, capsys, "17")["id"]
    assert estate.run("conflicts", "show", id) == 0
    shown = capsys.readouterr().out
    for words in (
        "17-e2 (Cancelled)",
        "17-w1 (Shipped)",
        "nothing of west",
        "east up to 1",
        "1. concurrent: east's Cancelled 17-e2 (number 2) had seen nothing of west",
        "rule shipped-beats-cancelled applies",
        "precedence is Shipped before Cancelled",
        "lost; kept here",
    ):
        assert words in shown
    assert shown.count("the same") == 2
    assert estate.run("-o", "json", "conflicts", "show", id) == 0
    told = answer(capsys)
    assert {name: (said["state"], said["winner"]) for name, said in told["regions"].items()} == {
        "east": ("the same", "17-w1"),
        "west": ("the same", "17-w1"),
    }


def test_a_key_is_shown_as_it_is_whatever_it_looks_like(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    key = "[/b] [red]:100:"
    estate.pair.tell(key, CANCELLED_AND_SHIPPED)
    estate.pair.settle()
    id = conflict_of(estate, capsys, key)["id"]
    assert estate.run("conflicts", "show", id) == 0
    shown = capsys.readouterr().out
    assert f"order/{key} in orders" in shown
    assert estate.run("conflicts", "explain", id) == 0
    assert capsys.readouterr().out == shown


def test_clocks_that_no_calendar_has_are_shown(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    east = estate.pair.sites[Region("east")]
    record = east.records(east.topics.conflicts)[0]
    told = json.loads(record.value or b"")
    told["candidates"][0]["hlc"] = f"{WALL_MS_MAX}.0"
    east.cluster.write(record.topic, record.partition, record.key, json.dumps(told).encode(), [])
    assert estate.run("conflicts", "list") == 0
    assert f"{WALL_MS_MAX} ms" in capsys.readouterr().out
    for at_ms, said in ((-(2**63), f"{-(2**63)} ms"), (2**63 - 1, f"{2**63 - 1} ms"), (-1, "1969-12-31 23:59:59.999")):
        told["decision"] = {"id": "d", "region": "east", "actor": "ann", "reason": "", "at_ms": at_ms}
        east.cluster.write(record.topic, record.partition, record.key, json.dumps(told).encode(), [])
        assert estate.run("conflicts", "show", told["id"], "--region", "east") == 0
        assert said in capsys.readouterr().out


def test_a_region_that_has_decided_otherwise_is_a_finding_and_one_that_has_not_is_said(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    one = conflict_of(estate, capsys, "17")
    west = estate.pair.sites[Region("west")]
    record = next(r for r in west.records(west.topics.conflicts) if (r.key or b"").decode() == one["id"])
    other = {**json.loads(record.value or b""), "winner": "17-e2"}
    west.cluster.write(record.topic, record.partition, record.key, json.dumps(other).encode(), [])
    assert estate.run("conflicts", "show", one["id"]) == 3
    assert "differs" in capsys.readouterr().out
    estate.pair.tell("19", CANCELLED_AND_SHIPPED)
    assert estate.run("conflicts", "show", "nothing") == 2
    assert "UNKNOWN_CONFLICT" in capsys.readouterr().err


def test_a_number_and_a_truth_are_not_the_same(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    id = conflict_of(estate, capsys, "17")["id"]
    for region, paid in (("east", 1), ("west", True)):
        site = estate.pair.sites[Region(region)]
        record = next(r for r in site.records(site.topics.conflicts) if (r.key or b"").decode() == id)
        told = json.loads(record.value or b"")
        told["candidates"][0]["value"]["paid"] = paid
        site.cluster.write(record.topic, record.partition, record.key, json.dumps(told).encode(), [])
    assert estate.run("conflicts", "show", id) == 3
    assert "differs" in capsys.readouterr().out


class Gone(FakeLogs):
    """Logs of a cluster that does not answer."""

    def spans(self, topics: Sequence[str], since_ms: int | None = None) -> dict[TopicPartition, Span]:
        raise MrcError("CLUSTER_UNREACHABLE", "no answer", retryable=True)


def test_a_region_that_does_not_answer_is_named_and_the_other_one_explains(
    estate: Estate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    id = conflict_of(estate, capsys, "17")["id"]
    logs = {"east": FakeLogs(estate.pair.sites[Region("east")].cluster), "west": Gone(estate.pair.sites[Region("west")].cluster)}
    monkeypatch.setattr(wiring, "KafkaLogs", lambda region, *_: logs[region])
    assert estate.run("-o", "json", "conflicts", "show", id) == 0
    assert {name: said["state"] for name, said in answer(capsys)["regions"].items()} == {"east": "the same", "west": "no answer"}
    for words in (("conflicts", "show", id, "--region", "west"), ("conflicts", "show", "nothing"), ("conflicts", "compare")):
        assert estate.run(*words) == 1
        assert "CLUSTER_UNREACHABLE" in capsys.readouterr().err


def test_stats_count_conflicts_compensations_and_dead_letters(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    east = estate.pair.sites[Region("east")]
    east.cluster.write("orders", 0, b"20", b"no json", [])
    estate.pair.settle()
    assert estate.run("-o", "json", "conflicts", "stats") == 0
    told = answer(capsys)
    assert [(one["what"], one["outcome"], one["count"]) for one in told["conflicts"]] == [
        ("refunds-by-hand", "open", 1),
        ("shipped-beats-cancelled", "west", 1),
    ]
    assert [(one["what"], one["count"]) for one in told["compensations"]] == [("shipment-recall", 1)]
    assert [one["count"] for one in told["dead_letters"]] == [1]
    assert estate.run("conflicts", "stats", "--region", "west") == 0
    assert "shipment-recall" not in capsys.readouterr().out


class Interrupted(FakeLogs):
    """Logs whose reader presses Ctrl-C when everything that was there has been read."""

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        for batch in super().follow(begin, passed):
            if not batch:
                raise KeyboardInterrupt
            yield batch


def test_tail_shows_what_is_decided_until_ctrl_c(
    estate: Estate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "KafkaLogs", lambda region, *_: Interrupted(estate.pair.sites[region].cluster))
    assert estate.run("-o", "json", "conflicts", "tail", "--since", "1970-01-01", "--entity", "order/17") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["winner"] for one in lines] == ["17-w1"]


@pytest.fixture
def agents(estate: Estate) -> Iterator[None]:
    """One agent per region, at the addresses that the configuration names; the second one of east is not there."""
    settings, servers = load(estate.path), []
    try:
        for region, written in settings.regions.items():
            agent = written.agents[0]
            servers.append(Server(Agent(World(), region, agent.id), AgentDockets(settings, Region(region)), "127.0.0.1:0"))
            estate.path.write_text(estate.path.read_text().replace(agent.grpc, servers[-1].start()))
        yield
    finally:
        for server in servers:
            server.stop(0.1)


@pytest.mark.usefixtures("agents")
def test_agents_say_what_their_kafka_says(estate: Estate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [conflict_of(estate, capsys, key)["id"] for key in ("17", "18")]
    questions = [
        ("list", "--outcome", "west", "--region", "west"),
        ("list", "--limit", "1"),
        ("list", "--entity", "nobody"),
        ("show", ids[0]),
        ("show", ids[1], "--region", "east"),
        ("stats", "--region", "west"),
    ]
    said = []
    for words in questions:
        assert estate.run("-o", "json", "conflicts", *words) == 0
        said.append(answer(capsys))
    with monkeypatch.context() as patch:
        patch.setattr("mrc.cli.conflicts.Spoken", None)  # who reads Kafka itself says how far that is
        for words, wanted in zip(questions, said, strict=True):
            assert estate.run("-o", "json", "conflicts", *words, "--agents") == 0
            assert answer(capsys) == wanted
        for words, code, told in (
            (("show", "nothing"), 2, "UNKNOWN_CONFLICT"),
            (("list", "--outcome", "north"), 2, "there are east, open, superseded, west"),
            (("list", "--topic", "payments"), 2, "no rules are about payments"),
            (("list", "--limit", "1000"), 2, "at most 200"),
            (("resolve", "nothing", "--winner", "east", "--yes"), 2, "no conflict nothing in east"),
        ):
            assert estate.run("conflicts", *words, "--agents") == code
            assert told in capsys.readouterr().err
        words = ("conflicts", "resolve", ids[1], "--winner", "west", "--actor", "ann", "--yes", "--agents", "--wait", "3600")
        assert estate.run("-o", "json", *words) == 0
        assert answer(capsys)["state"] == "decided"
    follow = AgentsDocket.follow

    def until_nothing_comes(docket: AgentsDocket, wanted: Filter, cursor: str = "") -> Iterator[News]:
        for number, news in enumerate(follow(docket, wanted, cursor)):
            if number and news.conflict is None:
                raise KeyboardInterrupt
            yield news

    monkeypatch.setattr(AgentsDocket, "follow", until_nothing_comes)
    monkeypatch.setattr("mrc.control.conflicts.HEARTBEAT_S", 0.1)
    assert estate.run("-o", "json", "conflicts", "tail", "--since", "1970-01-01", "--entity", "order/17", "--agents") == 0
    assert [json.loads(line)["winner"] for line in capsys.readouterr().out.splitlines()] == ["17-w1"]
    decided = conflict_of(estate, capsys, "18")
    assert decided["outcome"] == "west"
    assert decided["decision"]["actor"].startswith("ann, says ")


def test_compare_says_whether_the_regions_agree(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    assert estate.run("conflicts", "compare") == 0
    assert "2 entities: 2 the same" in capsys.readouterr().out
    estate.pair.tell("19", CANCELLED_AND_SHIPPED)
    estate.pair.settle(copying=False)
    assert estate.run("-o", "json", "conflicts", "compare", "--wait", "0") == 3
    told = answer(capsys)
    assert [(one["key"], one["state"]) for one in told["differences"]] == [("19", "under way")]
    assert {name: said["event"] for name, said in told["differences"][0]["regions"].items()} == {"east": "19-e2", "west": "19-w1"}
    assert estate.run("conflicts", "compare", "--wait", "0") == 3
    assert "19-e2, not final, made of east=2" in capsys.readouterr().out


def test_a_dry_run_shows_what_other_rules_would_change_and_writes_nothing(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: [site.records(topic) for topic in (*site.topics.inputs, *site.topics.made)] for name, site in estate.pair.sites.items()}
    assert estate.run("-o", "json", "rules", "dry-run", str(estate.folder / "conflicts.yaml")) == 0
    same = answer(capsys)
    assert (same["conflicts"], same["winners"], same["unjudged_conflicts"], same["events"]) == (2, 0, 0, 5)
    other = estate.folder / "other.yaml"
    other.write_text(RULES.replace("[Shipped, Cancelled]", "[Cancelled, Shipped]").replace("on_loss: shipment-recall", "on_loss: refund"))
    assert estate.run("-o", "json", "rules", "dry-run", str(other), "--region", "west") == 3
    told = answer(capsys)
    assert (told["conflicts"], told["winners"], told["standings"], told["unjudged_conflicts"]) == (2, 1, 1, 0)
    (change,) = told["decisions"]
    assert (change["key"], change["was"]["winner"], change["would"]["winner"]) == ("17", "17-w1", "17-e2")
    assert (told["compensations"], told["compensations_would"]) == ({}, {"refund": 1})
    assert estate.run("rules", "dry-run", str(other)) == 3
    assert "17-e2 of east by shipped-beats-cancelled" in capsys.readouterr().out
    assert before == {
        name: [site.records(topic) for topic in (*site.topics.inputs, *site.topics.made)] for name, site in estate.pair.sites.items()
    }


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("conflicts", "list", "--topic", "payments"), 2, "no rules are about payments; there are rules about orders"),
        (("conflicts", "list", "--region", "north"), 2, "north is not a region of orders; there are east, west"),
        (("conflicts", "list", "--outcome", "north"), 2, "there are east, open, superseded, west"),
        (("conflicts", "list", "--open", "--outcome", "west"), 2, "no conflict is both"),
        (("conflicts", "resolve", "nothing", "--winner", "east", "--yes"), 2, "no conflict nothing in east"),
        (("conflicts", "resolve", "nothing", "--winner", "east", "--actor", "x" * 200), 2, "--actor takes 128 characters"),
        (("conflicts", "list", "--since", "yesterday"), 2, "is neither how long ago"),
        (("conflicts", "list", "--since", "2999-01-01"), 2, "in the future"),
        (("rules", "dry-run", "nowhere.yaml"), 2, "nowhere.yaml"),
        (("rules", "dry-run", "RULES", "--offset", "orders=5"), 2, "is not TOPIC-PARTITION=OFFSET"),
        (("rules", "dry-run", "RULES", "--offset", "orders-0=99"), 1, "orders-0 ends at"),
        (("rules", "dry-run", "RULES", "--offset", "payments-0=0"), 2, "payments-0 is not read"),
    ],
)
def test_what_is_asked_wrongly_is_said_with_what_there_is(
    estate: Estate, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    given = [str(estate.folder / "conflicts.yaml") if word == "RULES" else word for word in words]
    assert estate.run(*given) == code
    assert said in capsys.readouterr().err


def test_a_person_decides_an_open_conflict_and_both_regions_say_so(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    id = conflict_of(estate, capsys, "18")["id"]
    assert estate.run("conflicts", "list", "--open") == 0
    shown = capsys.readouterr().out
    assert id in shown
    assert "until a person decides, before 1970-01-02" in shown
    words = ("conflicts", "resolve", id, "--winner", "east", "--reason", "refund\x1b was paid", "--actor", "ann", "--yes")
    assert estate.run("-o", "json", *words, "--region", "west") == 0
    answered = answer(capsys)
    assert (answered["state"], answered["winner"], answered["region"]) == ("decided", "18-r1", "west")
    estate.pair.settle()
    for region in ("east", "west"):
        assert estate.run("-o", "json", "conflicts", "list", "--entity", "18", "--region", region) == 0
        (row,) = answer(capsys)
        assert (row["outcome"], row["winner"], row["open"], row["closed"]) == ("east", "18-r1", False, "decision")
        assert {name: row["decision"][name] for name in ("id", "actor", "reason", "region")} == {
            "id": answered["decision"],
            "actor": "ann",
            "reason": "refund\x1b was paid",
            "region": "west",
        }
        said = dict(estate.pair.sites[Region(region)].resolved()["18"].headers)
        assert (said["mrc-event-id"], said["mrc-final"], said["mrc-decision"]) == (b"18-r1", b"true", answered["decision"].encode())
    assert estate.run("conflicts", "show", id) == 0
    shown = capsys.readouterr().out
    assert "ann decided for east's Refunded 18-r1: refund\\x1b was paid" in shown
    assert "decided by ann in west" in shown
    assert shown.count("the same") == 2
    assert estate.run("conflicts", "compare") == 0
    assert estate.run("conflicts", "list", "--open") == 0
    capsys.readouterr()
    assert estate.run(*words) == 2
    assert "ann decided it in west for 18-r1" in capsys.readouterr().err


def test_of_two_who_contradict_each_other_over_a_cut_link_one_is_told_so(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    id = conflict_of(estate, capsys, "18")["id"]
    estate.pair.copying = False
    for region, winner in (("east", "18-r1"), ("west", "18-d1")):
        words = ("conflicts", "resolve", id, "--winner", winner, "--actor", region, "--yes", "--region", region, "--wait", "2")
        assert estate.run("-o", "json", *words) == 4
        assert answer(capsys)["state"] == "waits"
    assert estate.run("conflicts", "compare", "--wait", "0") == 3
    assert "under way" in capsys.readouterr().out
    estate.pair.copying = True
    estate.pair.settle()
    estate.pair.settle()
    assert conflict_of(estate, capsys, "18")["decision"]["actor"] == "east"
    assert estate.run("conflicts", "compare") == 0
    letters = estate.pair.sites[Region("west")].records("mrc.dead-letters.orders")
    assert [dict(one.headers)["mrc-detail"] for one in letters] == [
        f"conflict {id} is not open: east decided it before, for 18-r1".encode()
    ]


def test_a_decision_whose_conflict_is_superseded_meanwhile_comes_to_nothing(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    id = conflict_of(estate, capsys, "18")["id"]
    estate.pair.before_append = lambda: estate.pair.tell("18", (*REFUNDED, Told("n1", "east", "NoteAdded", seen=("d1",), at_s=4.0)))
    assert estate.run("conflicts", "resolve", id, "--winner", "18-r1", "--yes") == 3
    assert "comes to nothing" in capsys.readouterr().out
    row = conflict_of(estate, capsys, "18")
    assert (row["outcome"], row["closed"]) == ("superseded", "superseded")
    assert estate.run("conflicts", "resolve", id, "--winner", "18-r1", "--yes") == 2
    assert "later events left nothing to decide" in capsys.readouterr().err


def test_a_decision_that_marks_overtake_is_given_again(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    id = conflict_of(estate, capsys, "18")["id"]
    tries = iter((True, True, False))

    def pause() -> None:
        if next(tries):
            estate.pair.settle()

    estate.pair.before_append = pause
    assert estate.run("-o", "json", "conflicts", "resolve", id, "--winner", "18-r1", "--yes") == 0
    assert answer(capsys)["state"] == "decided"
    assert next(tries, None) is None


def test_without_yes_the_event_is_typed(estate: Estate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    id = conflict_of(estate, capsys, "18")["id"]
    for typed, code in (("18-d1", 2), ("18-r1", 0)):
        monkeypatch.setattr("click.prompt", lambda words, **_: typed)  # noqa: B023
        assert estate.run("conflicts", "resolve", id, "--winner", "east") == code
    capsys.readouterr()
    assert conflict_of(estate, capsys, "18")["winner"] == "18-r1"


def test_rules_that_regions_have_not_alike_suspend_deciding_until_they_have(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    def status(code: int) -> dict[str, Any]:
        assert estate.run("-o", "json", "rules", "status") == code
        (found,) = answer(capsys)
        assert isinstance(found, dict)
        return found

    before = conflict_of(estate, capsys, "17")
    was = status(0)
    assert (was["state"], was["partitions"]) == ("agreed", 2)
    (estate.folder / "conflicts.yaml").write_text(RULES.replace("[Shipped, Cancelled]", "[Cancelled, Shipped]"))
    settings = load(estate.path)
    (kind,) = kinds_of(settings, settings.replication_groups[0])
    estate.pair.restart("east", kind)
    estate.pair.settle()
    estate.pair.tell("19", tuple(msgspec.structs.replace(one, at_s=60.0 + at) for at, one in enumerate(CANCELLED_AND_SHIPPED)))
    estate.pair.settle()
    found = status(3)
    assert found["state"] == "suspended"
    assert {one["has"] for one in found["regions"]["east"].values()} == {kind.rules.hash} == {found["file"]}
    assert {one["has"] for one in found["regions"]["west"].values()} == {was["file"]}
    assert {one["by"] for region in found["regions"].values() for one in region.values()} == {was["file"]}
    assert estate.run("rules", "status") == 3
    assert "suspended" in capsys.readouterr().out
    assert estate.run("conflicts", "list", "--entity", "19") == 0
    assert "no conflict is like that" in capsys.readouterr().err
    estate.pair.restart("west", kind)
    estate.pair.settle()
    assert status(0)["file"] == kind.rules.hash
    decided = conflict_of(estate, capsys, "19")
    assert (decided["rules_hash"], decided["outcome"]) == (kind.rules.hash, "east")
    assert conflict_of(estate, capsys, "17") == before
    estate.pair.no_answer("west")
    assert status(3)["state"] == "unknown"


def test_where_nothing_stands_nothing_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Estate(tmp_path)
    made.pair.instead_of_kafka(monkeypatch)
    assert made.run("conflicts", "compare") == 3
    assert "nothing was compared" in capsys.readouterr().err


def test_a_region_without_a_resolver_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    made = Estate(tmp_path)
    made.pair.instead_of_kafka(monkeypatch)
    monkeypatch.setattr(made.pair.sites[Region("east")].cluster, "_partitions", {})
    assert made.run("conflicts", "list") == 1
    assert "there is no mrc.conflicts.orders" in capsys.readouterr().err


def test_a_dry_run_that_could_judge_nothing_is_no_yes(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    for site in estate.pair.sites.values():  # retention has taken the history
        for tp, span in FakeLogs(site.cluster).spans(site.topics.inputs).items():
            site.cluster.trim(tp, span.end)
    assert estate.run("-o", "json", "rules", "dry-run", str(estate.folder / "conflicts.yaml")) == 3
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["conflicts"], told["entities"], told["unjudged_conflicts"]) == (0, 0, 2)
    assert "nothing could be judged" in said.err


def test_what_writers_chose_does_not_reach_the_terminal_as_commands(
    estate: Estate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "\x1b[2J\x07evil\nline"
    estate.pair.tell(key, CANCELLED_AND_SHIPPED)
    estate.pair.settle()
    monkeypatch.setattr(wiring, "KafkaLogs", lambda region, *_: Interrupted(estate.pair.sites[region].cluster))
    assert estate.run("conflicts", "tail", "--since", "1970-01-01") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert any("\\x1b[2J\\x07evil\\nline" in line for line in lines)
    estate.pair.instead_of_kafka(monkeypatch)
    for words in (("list",), ("show", conflict_of(estate, capsys, key)["id"]), ("compare",)):
        assert estate.run("conflicts", *words) == 0
        assert not {"\x1b", "\x07"} & set(capsys.readouterr().out)
