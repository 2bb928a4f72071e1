"""Three brokers per region on real servers: a fence is proved on every partition's leader, though ACLs reach the brokers one by one."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from mrc.sandbox.layout import Options, broker
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox
from tests.e2e.running import (
    IN_TIME_S,
    begun,
    ended,
    eventually,
    everything_is_accounted_for,
    execution,
    fence,
    in_transaction,
    pid,
    ready,
    record,
    state,
    until_step,
    values,
)

pytestmark = [pytest.mark.server, pytest.mark.long]

PARTITIONS = 7


@pytest.fixture(scope="module")
def estate() -> Iterator[tuple[Sandbox, Traffic]]:
    folder = state("brokers")
    sandbox, traffic = Sandbox(folder), Traffic(folder, folder / "traffic")
    try:
        sandbox.up(Options(brokers=3))
        sandbox.start_agents()
        traffic.start(50.0, groups={"billing": 0.0, "shipping": 1.0})  # six brokers leave two cores little else to do
        ready(sandbox, "west")
        yield sandbox, traffic
    finally:
        sandbox.down()


def leaders(sandbox: Sandbox, region: str) -> dict[tuple[str, int], int]:
    """The broker that leads each partition of the unit."""
    admin = AdminClient({**sandbox.client_config(region, "admin"), "log_level": "0"})
    topics = admin.list_topics(timeout=60.0).topics
    return {(topic, n): one.leader for topic in ("orders", "payments") for n, one in topics[topic].partitions.items()}


def evidence(sandbox: Sandbox, id: str, step: str) -> str:
    return str(next(one["evidence"] for one in execution(sandbox, id)["steps"] if one["name"] == step))


def test_the_leaders_on_all_three_brokers_are_seen_to_refuse_and_later_to_accept(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    assert set(leaders(sandbox, "east").values()) == set(leaders(sandbox, "west").values()) == {1, 2, 3}
    id = begun(sandbox, "switchover", "west")
    ended(sandbox, id, "succeeded")
    assert f"{PARTITIONS} refuse, 0 accept, 0 unverifiable" in evidence(sandbox, id, "fence-source")
    assert f"0 refuse, {PARTITIONS} accept, 0 unverifiable" in evidence(sandbox, id, "open-target")
    assert traffic.wait_acked(200, IN_TIME_S, region="west")
    assert record(sandbox) == ("west", "open")


def test_a_broker_that_dies_in_the_middle_of_fencing_is_proved_by_the_leaders_that_follow_it(estate: tuple[Sandbox, Traffic]) -> None:
    """An open transaction keeps the fence from being proved, until the dead broker's partitions have other leaders."""
    sandbox, traffic = estate
    ready(sandbox, "east")
    producer = in_transaction(sandbox, "west", aborted_after_s=IN_TIME_S)
    id = begun(sandbox, "switchover", "east")
    until_step(sandbox, id, "fence-source", "running", "doing", "verifying")
    led = Counter(leaders(sandbox, "west").values())
    victim = max(led, key=led.__getitem__)
    os.kill(pid(sandbox, broker("west", victim)), signal.SIGKILL)
    eventually(lambda: set(leaders(sandbox, "west").values()) == {1, 2, 3} - {victim}, lambda: leaders(sandbox, "west"))
    assert record(sandbox) == ("west", "draining")
    producer.commit_transaction(IN_TIME_S)
    ended(sandbox, id, "succeeded")
    assert f"{PARTITIONS} refuse, 0 accept, 0 unverifiable" in evidence(sandbox, id, "fence-source")
    assert b"across" in values(sandbox, "east", "orders", 0).values()
    assert record(sandbox) == ("east", "open")
    assert traffic.wait_acked(200, IN_TIME_S, region="east")
    sandbox.start("west")
    eventually(lambda: (fence(sandbox, "east"), fence(sandbox, "west")) == ("open", "fenced"))


def test_nothing_was_lost_or_skipped_on_the_way_there_and_back(estate: tuple[Sandbox, Traffic]) -> None:
    everything_is_accounted_for(*estate, active="east")
