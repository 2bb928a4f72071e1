"""The client: all agents at once, the leader once, and what dead agents cost."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from mrc.control.client import Client
from mrc.core.errors import MrcError
from mrc.core.model import Region
from mrc.wiring.estates import led_beside
from tests.control.estate import Estate

MOVE: dict[str, Any] = {"kind": "switchover", "target": "west", "token": "t-1", "reason": "because"}


@pytest.fixture
def client(estate: Estate) -> Iterator[Client]:
    with Client(estate.settings, "alice") as made:
        yield made


def test_all_agents_are_asked_and_answer_in_the_order_of_the_configuration(client: Client) -> None:
    answers = client.ask_all("Version")
    assert [answer.view.agent for answer in answers] == ["east-a", "east-b", "west-a", "west-b"]
    assert [answer.view.leads for answer in answers] == [False, True, False, True]


def test_the_leader_is_found_through_an_agent_that_does_not_lead(client: Client, estate: Estate) -> None:
    flows = client.ask_leader("west", "Lag")
    assert [flow.source for flow in flows] == ["east"]
    assert estate.agents["west-a"].calls == ["lead"]
    assert estate.agents["west-b"].calls == ["lead"]


def test_not_leader_is_followed_once_and_not_in_circles(client: Client, estate: Estate) -> None:
    client.election_s = 0.0
    estate.world.leaders["west"] = "east-a"
    with pytest.raises(MrcError) as caught:
        client.ask_leader("west", "Lag")
    assert caught.value.code == "NOT_LEADER"
    assert sum(len(agent.calls) for agent in estate.agents.values()) == 3


@pytest.mark.parametrize("dead", [True, False], ids=["dead-leader", "no-leader"])
def test_an_election_is_waited_for(client: Client, estate: Estate, dead: bool) -> None:
    if dead:
        estate.stop("west-b")
    else:
        estate.world.leaders["west"] = ""
    later = threading.Timer(0.5, estate.world.leaders.__setitem__, ("west", "west-a"))
    later.start()
    try:
        assert client.ask_leader("west", "Lag")[0].target == "west"
        assert client.leader("west").agent == "west-a"
    finally:
        later.join()
    assert len(estate.agents["west-a"].calls) > 1


def test_an_election_that_does_not_end_is_an_error_in_time(client: Client, estate: Estate) -> None:
    client.election_s = 0.6
    estate.world.leaders["west"] = ""
    for ask in (lambda: client.ask_leader("west", "Lag"), lambda: client.leader("west")):
        began_s = time.monotonic()
        with pytest.raises(MrcError) as caught:
            ask()
        assert caught.value.code == "NOT_LEADER"
        assert 0.6 <= time.monotonic() - began_s < 3


def test_the_other_agent_is_asked_when_one_is_dead(client: Client, estate: Estate) -> None:
    estate.stop("west-a")
    assert client.ask_leader("west", "Lag")[0].target == "west"


def test_where_nobody_answers_the_addresses_are_named(client: Client, estate: Estate) -> None:
    estate.stop("west-a", "west-b")
    began_s = time.monotonic()
    with pytest.raises(MrcError) as caught:
        client.ask_leader("west", "Lag")
    assert time.monotonic() - began_s < 2
    assert caught.value.code == "AGENT_UNREACHABLE"
    assert estate.world.addresses["west-a"] in caught.value.where
    assert estate.world.addresses["west-b"] in caught.value.where


@pytest.mark.parametrize("leader", ["west-a", "west-b"], ids=["asked-first", "pointed-to"])
@pytest.mark.parametrize("late", [True, False], ids=["late", "silent"])
def test_a_leader_that_does_not_answer_in_time_is_named_and_not_the_agent_that_points_to_it(
    client: Client, estate: Estate, monkeypatch: pytest.MonkeyPatch, leader: str, late: bool
) -> None:
    estate.world.leaders["west"] = leader
    asked = threading.Event()
    if late:
        monkeypatch.setattr(estate.agents[leader], "lag", lambda rg: ((), asked.wait(30))[0])
    else:
        estate.stop(leader)
    try:
        with pytest.raises(MrcError) as caught:
            client.ask_leader("west", "Lag", deadline_s=1.5)
    finally:
        asked.set()
    assert (caught.value.code, caught.value.where) == ("AGENT_UNREACHABLE", estate.world.addresses[leader])
    assert ("has not answered Lag within 1.5 s; it may still do what was asked" in caught.value.message) == late
    assert "Ask again" in caught.value.message


def test_an_unknown_region_is_refused_without_asking(client: Client) -> None:
    with pytest.raises(MrcError, match="configured: east, west") as caught:
        client.ask_leader("north", "Lag")
    assert caught.value.code == "UNKNOWN_REGION"


def test_dead_and_silent_agents_are_told_within_two_seconds(estate: Estate) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        east = estate.settings.regions["east"]
        mute = msgspec.structs.replace(east.agents[0], grpc=f"127.0.0.1:{silent.getsockname()[1]}")
        regions = {**estate.settings.regions, "east": msgspec.structs.replace(east, agents=(mute, east.agents[1]))}
        estate.stop("east-b")
        with Client(msgspec.structs.replace(estate.settings, regions=regions)) as client:
            began_s = time.monotonic()
            answers = client.ask_all("Status", replication_group="")
            taken_s = time.monotonic() - began_s
            assert taken_s < 2
            assert [answer.error.code if answer.error else "" for answer in answers] == ["AGENT_UNREACHABLE", "AGENT_UNREACHABLE", "", ""]
            began_s = time.monotonic()
            with pytest.raises(MrcError, match="no agent answered"):
                client.ask_leader("east", "Lag")
            assert time.monotonic() - began_s < 3


def test_the_first_answer_counts_when_anybody_may_answer(client: Client, estate: Estate) -> None:
    estate.stop("east-a", "east-b", "west-a")
    assert client.ask_any("ListDivergence", replication_group="")[0].region == "east"


def test_a_refusal_says_more_than_silence(client: Client, estate: Estate) -> None:
    estate.stop("east-a")
    with pytest.raises(MrcError) as caught:
        client.ask_any("GetExecution", execution_id="nope")
    assert (caught.value.code, caught.value.where) == ("UNKNOWN_EXECUTION", "nope")


def test_a_move_is_started_once_per_token(client: Client) -> None:
    first = client.ask_leader("west", "StartMove", **MOVE)
    assert client.ask_leader("west", "StartMove", **MOVE) == first
    assert (first.actor, first.reason) == ("alice (unauthenticated)", "because")


def test_every_other_method_answers(client: Client, estate: Estate) -> None:
    estate.world.auto = False
    move = client.ask_leader("west", "StartMove", **MOVE)
    assert client.ask_leader("west", "Plan", kind="failover", target="west", attested=True).expected_loss
    assert client.ask_leader("west", "ListCheckpoints", group="billing")[0].group == "billing"
    assert client.ask_leader("west", "Translate", source="east", topic="orders", partition=0, offset=4).offset == 10
    assert [v.verdict for v in client.stream_leader("west", "Verify", group="")] == ["agrees", "agrees"]
    assert client.ask_any("GetExecution", execution_id=move.id) == move
    assert client.ask_any("ListExecutions") == (move,)
    assert [entry.what for entry in client.ask_any("GetHistory", execution_id=move.id)] == ["started", "did"]
    estate.world.put(msgspec.structs.replace(move, status="waiting", waits_for="approval"))
    assert client.ask_leader("west", "Approve", execution_id=move.id).status == "running"
    assert client.ask_leader("west", "Abort", execution_id=move.id).status == "aborted"


def test_a_watch_begins_at_once_and_ends_with_the_execution(client: Client) -> None:
    move = client.ask_leader("west", "StartMove", **MOVE)
    seen = list(client.watch(move.id, "west"))
    assert [view.status for view in seen] == ["running", "running", "running", "running", "succeeded"]
    assert [sum(step.state == "done" for step in view.steps) for view in seen] == [0, 1, 2, 3, 4]


def test_a_watch_prefers_the_leader_and_takes_any_agent(client: Client, estate: Estate) -> None:
    move = client.ask_leader("west", "StartMove", **MOVE)
    next(client.watch(move.id, "west"))
    assert "watch" in estate.agents["west-b"].calls
    estate.stop("west-a", "west-b")
    assert next(client.watch(move.id, "west")).id == move.id


def test_a_watch_can_be_dropped_and_begun_again(client: Client) -> None:
    move = client.ask_leader("west", "StartMove", **MOVE)
    first = client.watch(move.id, "west")
    next(first)
    first.close()
    assert list(client.watch(move.id, "west"))[-1].status == "succeeded"


def test_an_agent_learns_from_those_beside_it_whether_one_leads(estate: Estate) -> None:
    first, leader = estate.settings.regions["east"].agents
    assert led_beside(estate.settings, Region("east"), first)
    assert not led_beside(estate.settings, Region("east"), leader)  # west's leader is not beside it, and it does not ask itself
    estate.stop("east-b")
    assert not led_beside(estate.settings, Region("east"), first)
