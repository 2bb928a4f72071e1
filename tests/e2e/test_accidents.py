"""Accidents in the middle of moves on real Kafka, MirrorMaker 2 and ZooKeeper; what it cost is counted from the traffic's logs.

The tests share one sandbox and move its unit to and fro; the last test counts.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from mrc.config import load, runbook_folder
from mrc.sandbox.layout import Options
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox
from tests.e2e.running import IN_TIME_S, begun, eventually, leader, mrc, ready, refusal, said, state

pytestmark = pytest.mark.server

SESSION_S = 4.0
"""Of the sandbox's agents."""


@pytest.fixture(scope="module")
def estate() -> Iterator[tuple[Sandbox, Traffic]]:
    folder = state("accidents")
    sandbox, traffic = Sandbox(folder), Traffic(folder, folder / "traffic")
    try:
        sandbox.up(Options())
        shutil.copytree(runbook_folder(load(sandbox.config_path).replication_groups[0]), folder / "runbooks")
        settings = yaml.safe_load(sandbox.config_path.read_text())
        settings["replication_groups"][0]["runbooks"] = "runbooks"
        sandbox.config_path.write_text(yaml.safe_dump(settings, sort_keys=False))
        sandbox.start_agents()
        traffic.start(500.0, groups={"billing": 0.0, "shipping": 1.0})
        ready(sandbox, "west")
        yield sandbox, traffic
    finally:
        sandbox.down()


def execution(sandbox: Sandbox, id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in said(sandbox, "history") if one["id"] == id)
    return found


def until_step(sandbox: Sandbox, id: str, step: str, *states: str) -> None:
    """Return as soon as a step is in one of these states."""

    def reached() -> bool:
        return next(s["state"] for s in execution(sandbox, id)["steps"] if s["name"] == step) in states

    eventually(reached, lambda: execution(sandbox, id))


def ended(sandbox: Sandbox, id: str, status: str) -> None:
    eventually(lambda: execution(sandbox, id)["status"] == status, lambda: execution(sandbox, id))


def pid(sandbox: Sandbox, part: str) -> int:
    found = next(one.pid for one in sandbox.status() if one.part == part)
    assert found is not None
    return found


def record(sandbox: Sandbox) -> tuple[str, str]:
    found = said(sandbox, "status")["record"]
    return found["region"], found["state"]


def fence(sandbox: Sandbox, region: str) -> str:
    return str(next(one["fence"]["state"] for one in said(sandbox, "status")["regions"] if one["region"] == region))


def in_transaction(sandbox: Sandbox, region: str, *, aborted_after_s: float) -> Producer:
    """Return a producer whose transaction, with one record on orders-0, is open: no fence is proved while it is."""
    settings = {"transactional.id": f"across-{region}", "transaction.timeout.ms": int(aborted_after_s * 1000)}
    producer = Producer({**sandbox.client_config(region, "producer"), **settings})
    producer.init_transactions(IN_TIME_S)
    producer.begin_transaction()
    producer.produce("orders", value=b"across", key=b"across", partition=0)
    assert producer.flush(IN_TIME_S) == 0
    return producer


def holds(sandbox: Sandbox, region: str, tp: tuple[str, int], value: bytes) -> bool:
    """Whether a partition holds a visible record with this value; its traffic goes on."""
    consumer = Consumer(
        {
            **sandbox.client_config(region, "admin"),
            "group.id": "test-accidents",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    try:
        consumer.assign([TopicPartition(*tp, 0)])
        until_s = time.monotonic() + IN_TIME_S
        while time.monotonic() < until_s:
            if any(message.value() == value for message in consumer.consume(10_000, 0.5)):
                return True
        return False
    finally:
        consumer.close()


def test_a_transaction_that_is_open_across_the_fence_is_waited_for_and_none_of_it_is_lost(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    producer = in_transaction(sandbox, "east", aborted_after_s=IN_TIME_S)
    id = begun(sandbox, "switchover", "west")
    until_step(sandbox, id, "fence-source", "running", "doing", "verifying")
    time.sleep(3)
    assert record(sandbox) == ("east", "draining")
    assert execution(sandbox, id)["status"] in ("running", "doing", "verifying")
    producer.commit_transaction(IN_TIME_S)  # the DENY is for Write; who ends a transaction needs it no more
    ended(sandbox, id, "succeeded")
    assert record(sandbox) == ("west", "open")
    assert holds(sandbox, "west", ("orders", 0), b"across")
    assert traffic.wait_acked(200, IN_TIME_S, region="west")


def test_a_leader_that_sleeps_through_two_sessions_wakes_as_nobody_and_the_world_is_as_the_journal_says(
    estate: tuple[Sandbox, Traffic],
) -> None:
    sandbox, traffic = estate
    ready(sandbox, "east")
    sleeper = leader(sandbox, "east")
    asleep = pid(sandbox, sleeper)
    id = begun(sandbox, "switchover", "east")
    until_step(sandbox, id, "fence-source", "running", "doing", "verifying", "done")
    os.kill(asleep, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        ended(sandbox, id, "succeeded")
        time.sleep(max(0.0, 2 * SESSION_S - (time.monotonic() - began_s)))
    finally:
        os.kill(asleep, signal.SIGCONT)
    entries = said(sandbox, "history", id)
    assert {entry["agent"] for entry in entries} > {sleeper}
    time.sleep(SESSION_S)
    assert said(sandbox, "history", id) == entries
    assert record(sandbox) == ("east", "open")
    assert leader(sandbox, "east") != sleeper
    eventually(lambda: (fence(sandbox, "east"), fence(sandbox, "west")) == ("open", "fenced"))
    assert traffic.wait_acked(200, IN_TIME_S, region="east")


def test_a_zookeeper_server_may_die_in_the_middle_of_a_move(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    ready(sandbox, "west")
    id = begun(sandbox, "switchover", "west")
    os.kill(pid(sandbox, "east-zookeeper"), signal.SIGKILL)
    ended(sandbox, id, "succeeded")
    assert record(sandbox) == ("west", "open")
    assert traffic.wait_acked(200, IN_TIME_S, region="west")


def test_a_switchover_whose_source_dies_under_it_gives_way_to_a_failover_and_the_region_comes_home(
    estate: tuple[Sandbox, Traffic],
) -> None:
    sandbox, traffic = estate
    sandbox.start("east")  # the ZooKeeper server that was killed
    ready(sandbox, "east")
    _producer = in_transaction(sandbox, "west", aborted_after_s=60.0)
    id = begun(sandbox, "switchover", "east")
    until_step(sandbox, id, "fence-source", "running", "doing", "verifying")
    sandbox.kill("west")
    # ZooKeeper's other servers may have to elect a leader first.
    eventually(lambda: refusal(mrc(sandbox, "failover", "east", "--attest-dead", "--yes"))["code"] == "MOVE_IN_PROGRESS")
    done = mrc(sandbox, "failover", "east", "--attest-dead", "--allow-data-loss", "--yes", "--reason", "west died under the switchover")
    assert done.returncode == 0, done.stderr
    assert execution(sandbox, id)["status"] == "superseded"
    assert record(sandbox) == ("east", "open")
    assert traffic.wait_acked(200, IN_TIME_S, region="east")
    sandbox.start("west")
    sandbox.start_agents("west")
    eventually(lambda: {one["state"] for one in said(sandbox, "divergence", "show")} == {"listed"})
    ready(sandbox, "west")
    assert fence(sandbox, "west") == "fenced"


def test_a_region_that_returns_in_the_middle_of_its_failover_is_fenced_before_the_other_one_opens(estate: tuple[Sandbox, Traffic]) -> None:
    """A person is asked before the positions are moved; meanwhile the region that was called dead is there again, agents and all."""
    sandbox, traffic = estate
    runbook = sandbox.state.folder / "runbooks" / "failover.yaml"
    shipped = runbook.read_text()
    asking = shipped.replace("    action: move-positions\n", "    action: move-positions\n    approval: true\n")
    assert asking != shipped
    runbook.write_text(asking)
    sandbox.kill("east")
    id = begun(sandbox, "failover", "west", "--attest-dead", "--reason", "east died")
    eventually(lambda: execution(sandbox, id)["status"] == "waiting", lambda: execution(sandbox, id))
    sandbox.start("east")
    sandbox.start_agents("east")
    eventually(lambda: (record(sandbox), fence(sandbox, "east")) == (("west", "closed"), "fenced"))
    assert mrc(sandbox, "approve", id).returncode == 0
    ended(sandbox, id, "succeeded")
    runbook.write_text(shipped)
    assert record(sandbox) == ("west", "open")
    assert traffic.wait_acked(200, IN_TIME_S, region="west")
    eventually(lambda: {one["state"] for one in said(sandbox, "divergence", "show")} == {"listed"})
    ready(sandbox, "east")
    assert (fence(sandbox, "east"), fence(sandbox, "west")) == ("fenced", "open")


def test_all_that_was_acknowledged_is_there_or_listed_and_nothing_was_skipped(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    traffic.stop_producers()
    assert traffic.drain(IN_TIME_S)
    listed = sum(r["records"] for one in said(sandbox, "divergence", "show") for r in one["ranges"])
    verdict = traffic.judge([], active="west", drained=True)
    assert verdict.lost_after <= listed
    log = traffic.logs()
    assert log.acked
