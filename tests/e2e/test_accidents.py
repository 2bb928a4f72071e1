"""Accidents in the middle of moves on real Kafka, MirrorMaker 2 and ZooKeeper; what it cost is counted from the traffic's logs.

The tests share one sandbox and move its unit to and fro; the last test counts.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator

import pytest
import yaml
from confluent_kafka.admin import AdminClient

from mrc.adapters.kafka.acls import EVERY_BINDING
from mrc.config import load, runbook_folder
from mrc.sandbox import processes
from mrc.sandbox.judge import read_log
from mrc.sandbox.layout import Options, other
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox
from tests.e2e.running import (
    IN_TIME_S,
    SESSION_S,
    begun,
    ended,
    eventually,
    everything_is_accounted_for,
    execution,
    fence,
    found,
    in_transaction,
    leader,
    mrc,
    pid,
    ready,
    record,
    refusal,
    said,
    state,
    until_step,
    values,
    written_to,
)

pytestmark = pytest.mark.server

FENCES_ITSELF_S = 8.0
"""After so long without a majority agents refuse writes in their open region."""


@pytest.fixture(scope="module")
def estate() -> Iterator[tuple[Sandbox, Traffic]]:
    folder = state("accidents")
    sandbox, traffic = Sandbox(folder), Traffic(folder, folder / "traffic")
    try:
        sandbox.up(Options(links=True))
        shutil.copytree(runbook_folder(load(sandbox.config_path).replication_groups[0]), folder / "runbooks")
        settings = yaml.safe_load(sandbox.config_path.read_text())
        settings["replication_groups"][0] |= {"runbooks": "runbooks", "on_quorum_loss": "fence", "self_fence_after_s": FENCES_ITSELF_S}
        sandbox.config_path.write_text(yaml.safe_dump(settings, sort_keys=False))
        sandbox.start_agents()
        traffic.start(500.0, groups={"billing": 0.0, "shipping": 1.0})
        ready(sandbox, "west")
        yield sandbox, traffic
    finally:
        sandbox.down()


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
    assert b"across" in values(sandbox, "west", "orders", 0).values()
    assert traffic.wait_acked(200, IN_TIME_S, region="west")


def test_a_leader_that_sleeps_through_two_sessions_wakes_as_nobody_and_the_world_is_as_the_journal_says(
    estate: tuple[Sandbox, Traffic],
) -> None:
    """It falls asleep in the middle of the fence, which an open transaction keeps from being proved, and wakes in it as well."""
    sandbox, traffic = estate
    ready(sandbox, "east")
    producer = in_transaction(sandbox, "west", aborted_after_s=IN_TIME_S)
    sleeper = leader(sandbox, "east")
    asleep = pid(sandbox, sleeper)
    id = begun(sandbox, "switchover", "east")
    until_step(sandbox, id, "fence-source", "running", "doing", "verifying")
    os.kill(asleep, signal.SIGSTOP)
    try:
        time.sleep(2 * SESSION_S)
        eventually(lambda: leader(sandbox, "east") != sleeper)
    finally:
        os.kill(asleep, signal.SIGCONT)
    time.sleep(SESSION_S)
    assert record(sandbox) == ("west", "draining")
    producer.commit_transaction(IN_TIME_S)
    ended(sandbox, id, "succeeded")
    entries = said(sandbox, "history", id)
    woken = [entry["agent"] for entry in entries]
    assert sleeper in woken
    assert sleeper not in woken[woken.index(next(agent for agent in woken if agent != sleeper)) :]
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
    eventually(lambda: fence(sandbox, "west") == "fenced")


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
    eventually(lambda: (fence(sandbox, "east"), fence(sandbox, "west")) == ("fenced", "open"))


def test_a_flow_whose_connect_is_dead_is_blocked_until_connect_has_stopped_it(estate: tuple[Sandbox, Traffic]) -> None:
    """Connect of the target alone is down, so what the open region writes meanwhile is not copied, and never may be any more."""
    sandbox, traffic = estate
    source, target = record(sandbox)[0], other(record(sandbox)[0])
    ready(sandbox, target)
    before = denied_to_mirrormaker(sandbox, target)
    processes.end(sandbox.state.folder, [f"{target}-connect"], grace_s=0)
    assert traffic.wait_acked(300, IN_TIME_S, region=source)
    eventually(lambda: "FLOW_BLOCKED" in mrc(sandbox, "plan", "failover", target, "--attest-dead").stdout)
    id = begun(sandbox, "failover", target, "--attest-dead", "--reason", f"{source} is given up")
    ended(sandbox, id, "succeeded")
    assert record(sandbox) == (target, "open")
    evidence = {step["name"]: step["evidence"] for step in execution(sandbox, id)["steps"]}["stop-flow"]
    assert "User:mm2 may not write orders, payments there, and 7 logs stand still" in evidence
    assert len(denied_to_mirrormaker(sandbox, target) - before) == 2
    eventually(lambda: "FLOW_BLOCKED" in found(sandbox))
    sandbox.start(target)
    eventually(lambda: denied_to_mirrormaker(sandbox, target) == before and "FLOW_BLOCKED" not in found(sandbox))
    eventually(lambda: flow(sandbox, target) == ("STOPPED", []), lambda: flow(sandbox, target))
    eventually(lambda: {one["state"] for one in said(sandbox, "divergence", "show")} == {"listed"})
    (ledger,) = (one for one in said(sandbox, "divergence", "show") if one["id"] == id)
    left = {(r["topic"], r["partition"]): range(r["begin"], r["end"]) for r in ledger["ranges"]}
    assert sum(map(len, left.values())) >= 300
    topics = ["orders", "payments"]
    there, here = (read_log(sandbox.client_config(region, "admin"), topics, timeout_s=IN_TIME_S) for region in (source, target))
    tail = {event for partition, events in there.items() for offset, event in events if offset in left[partition]}
    assert tail.isdisjoint(event for events in here.values() for _, event in events)
    assert traffic.wait_acked(200, IN_TIME_S, region=target)
    ready(sandbox, source)


def denied_to_mirrormaker(sandbox: Sandbox, region: str) -> set[str]:
    """The refusals that name MirrorMaker, as the brokers tell them."""
    admin = AdminClient({**sandbox.client_config(region, "admin"), "log_level": "0"})
    found = admin.describe_acls(EVERY_BINDING, request_timeout=60.0).result(timeout=60.0)
    return {text for binding in found if "DENY" in (text := str(binding)) and "User:mm2" in text}


def flow(sandbox: Sandbox, target: str) -> tuple[str, list[str]]:
    """State and tasks of the flow into a region."""
    view = next(one for one in said(sandbox, "lag") if one["target"] == target)
    return view["connector_state"], view["tasks"]


def test_a_region_that_is_cut_off_fences_itself_and_returns_fenced(estate: tuple[Sandbox, Traffic]) -> None:
    """Nobody attests anything: the failover rests on the cut-off agents' own fence, and a writer that stayed there sees it stand."""
    sandbox, traffic = estate
    source, target = record(sandbox)[0], other(record(sandbox)[0])
    ready(sandbox, target)
    said_yes: list[bytes] = []

    def refused() -> bool:
        value = f"stayed-{len(said_yes)}".encode()
        error = written_to(sandbox, source, value)
        if not error:
            said_yes.append(value)
        return error == "TOPIC_AUTHORIZATION_FAILED"

    sandbox.cut(source)
    assert {one.state for one in sandbox.status() if one.kind == "link"} == {"cut", "up"}
    eventually(refused)
    assert said_yes, "it was refused before anything was cut off"
    id = begun(sandbox, "failover", target, "--reason", f"{source} is cut off")
    ended(sandbox, id, "succeeded")
    assert record(sandbox) == (target, "open")
    evidence = {step["name"]: step["evidence"] for step in execution(sandbox, id)["steps"]}
    assert "its fence is self-imposed" in evidence["attest"]
    assert traffic.wait_acked(200, IN_TIME_S, region=target)
    assert refused()
    sandbox.mend(source)
    eventually(lambda: fence(sandbox, source) == "fenced" and "SELF_FENCED" not in found(sandbox))
    eventually(lambda: {one["state"] for one in said(sandbox, "divergence", "show")} == {"listed"})
    ready(sandbox, source)
    eventually(lambda: (fence(sandbox, source), fence(sandbox, target), record(sandbox)) == ("fenced", "open", (target, "open")))
    assert refused()
    (ledger,) = (one for one in said(sandbox, "divergence", "show") if one["id"] == id)
    tail = next(r for r in ledger["ranges"] if (r["topic"], r["partition"]) == ("orders", 0))
    kept = set(values(sandbox, target, "orders", 0).values())
    listed = {value for offset, value in values(sandbox, source, "orders", 0).items() if tail["begin"] <= offset < tail["end"]}
    assert set(said_yes) <= kept | listed


def test_all_that_was_acknowledged_is_there_or_listed_and_nothing_was_skipped(estate: tuple[Sandbox, Traffic]) -> None:
    everything_is_accounted_for(*estate, active=record(estate[0])[0])
