"""East dies in full traffic, west is written to, east comes back and home: what became of each acknowledged event is counted by the
traffic's own logs.

The tests share one sandbox, whose MirrorMaker copies at least once; in the demo's way home it copies in transactions. Between them they go
home by every policy.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from mrc.sandbox.explained import Explained, explain, read_copies
from mrc.sandbox.layout import Options, broker
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox
from tests.e2e.running import IN_TIME_S, begun, eventually, leader, mrc, ready, record, records, said, state, values, written_to

pytestmark = pytest.mark.server

TOPICS = ("orders", "payments")
LEFT_BEHIND = 600
"""Events that east acknowledges at least while nothing is copied."""


def configure(sandbox: Sandbox, divergence: Mapping[str, Any]) -> None:
    settings = yaml.safe_load(sandbox.config_path.read_text())
    settings["replication_groups"][0]["divergence"] = dict(divergence)
    sandbox.config_path.write_text(yaml.safe_dump(settings, sort_keys=False))


@pytest.fixture(scope="module")
def estate() -> Iterator[tuple[Sandbox, Traffic]]:
    folder = state("failback")
    sandbox, traffic = Sandbox(folder), Traffic(folder, folder / "traffic")
    try:
        sandbox.up(Options())
        logs = {"orders": "purge"}
        configure(sandbox, {"resolve": "untouched", "topics": {"payments": "append"}, "old_logs": logs, "records_per_second": 100})
        sandbox.start_agents()
        traffic.start(300.0, groups={"billing": 0.0, "shipping": 1.0})
        ready(sandbox, "west")
        yield sandbox, traffic
    finally:
        sandbox.down()


def fail_over(sandbox: Sandbox, traffic: Traffic, left_behind: Mapping[bytes, bytes] | None = None) -> None:
    """East dies in full traffic while MirrorMaker is behind, and west is written to for a while.

    Args:
        left_behind: what is written besides to the first partition of payments and never copied.
    """
    url = f"{sandbox.layout.connect_url('west')}/connectors/mrc.orders.east-west/pause"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=20).close()
    assert traffic.wait_acked(LEFT_BEHIND, IN_TIME_S, region="east")
    pay(sandbox, left_behind or {})
    sandbox.kill("east")
    done = mrc(sandbox, "failover", "west", "--attest-dead", "--yes", "--reason", "east died")
    assert done.returncode == 0, done.stderr
    assert traffic.wait_acked(LEFT_BEHIND, IN_TIME_S, region="west")


def pay(sandbox: Sandbox, values: Mapping[bytes, bytes]) -> None:
    """Write to the first partition of payments in east, as an application."""
    producer = Producer({**sandbox.client_config("east", "producer")})
    for key, value in values.items():
        producer.produce("payments", value, key, partition=0)
    assert producer.flush(IN_TIME_S) == 0


def stands(sandbox: Sandbox, region: str, keys: Collection[bytes]) -> dict[bytes, bytes | None]:
    """The last value of each of these keys in the first partition of payments."""
    found = records(sandbox, region, "payments", 0).values()
    return {key: value for key, value in found if key is not None and key in keys}


def recovery(sandbox: Sandbox) -> dict[str, int]:
    """The sums of the last failover, as mrc says them."""
    done = mrc(sandbox, "divergence", "status")
    found = json.loads(done.stdout)[-1] if done.returncode in (0, 3) else {"partitions": ()}
    names = ("divergent", "exported", "emitted", "superseded", "quarantined", "overtaken")
    return {name: sum(one[name] for one in found["partitions"]) for name in names}


def judged(sandbox: Sandbox, traffic: Traffic, policies: Mapping[str, str], before_s: float) -> Explained:
    acked = [ack for ack in traffic.logs().acked if ack.at_s < before_s]
    return explain(acked, read_copies(sandbox.client_config("west", "admin"), TOPICS), policies, failed_over_to="west")


def kill_while(sandbox: Sandbox, what: str, others: tuple[str, ...]) -> str:
    """Kill the agent that leads in east while some, and not all, records are ``what``; return it."""

    def in_the_middle() -> bool:
        sums = recovery(sandbox)
        some = sum(sums[name] for name in (what, *others))
        assert some < sums["divergent"] or not sums["divergent"], f"too late: {sums}"
        return some > 0

    eventually(in_the_middle, lambda: recovery(sandbox))
    victim = leader(sandbox, "east")
    sandbox.kill_agent(victim)
    return victim


def test_an_agent_killed_in_the_export_and_one_in_the_re_emission_leave_every_event_with_one_fate(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    fail_over(sandbox, traffic)
    sandbox.start("east")
    sandbox.start_agents("east")
    eventually(lambda: {one["state"] for one in said(sandbox, "divergence", "show")} == {"listed"})
    before_s = time.time()
    id = begun(sandbox, "failback", "east")
    victim = kill_while(sandbox, "exported", ())
    sandbox.start_agent(victim)
    kill_while(sandbox, "emitted", ("superseded", "quarantined"))
    watched = mrc(sandbox, "watch", id)
    assert watched.returncode == 0, watched.stderr
    sandbox.start_agents("east")
    found = judged(sandbox, traffic, {"orders": "untouched", "payments": "append"}, before_s)
    assert found.unexplained == {}
    assert found.ok
    assert found.emitted > 0
    assert found.superseded > 0
    sums = recovery(sandbox)
    assert sums["divergent"] == sums["exported"] == sums["emitted"] + sums["superseded"] + sums["quarantined"]
    # The log may also hold events whose acknowledgement never reached the producer.
    assert sums["divergent"] >= found.divergent >= LEFT_BEHIND / 2
    # The log of orders in east begins behind its tail now, and no group has missed what lay below it.
    (entry,) = said(sandbox, "divergence", "show")
    for one in (one for one in entry["ranges"] if one["topic"] == "orders" and one["records"]):
        assert min(values(sandbox, "east", "orders", one["partition"])) >= one["end"]
    present = {one.id for one in read_copies(sandbox.client_config("west", "admin"), TOPICS) if one.topic in TOPICS}
    for group in traffic.groups():
        missed = partial(missed_by, traffic, group, present)
        eventually(lambda missed=missed: not missed(), missed)  # type: ignore[misc] # mypy cannot infer it from the default
    assert traffic.wait_acked(200, IN_TIME_S, region="east")
    ready(sandbox, "west")


def missed_by(traffic: Traffic, group: str, ids: set[str]) -> set[str]:
    """Those of the events that a group has not processed yet."""
    return ids - {line.id for line in traffic.logs().processed if line.group == group}


def compact_payments(sandbox: Sandbox) -> None:
    for region in ("east", "west"):
        admin = AdminClient({**sandbox.client_config(region, "admin")})
        entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, "payments", incremental_configs=[entry])
        admin.incremental_alter_configs([resource], request_timeout=IN_TIME_S)[resource].result(IN_TIME_S)


def test_one_old_log_is_made_anew_and_the_other_superseded_and_what_they_alone_had_stays_in_quarantine(
    estate: tuple[Sandbox, Traffic],
) -> None:
    sandbox, traffic = estate
    sandbox.stop_agents()
    configure(sandbox, {"resolve": "quarantine", "old_log": "recreate", "old_logs": {"payments": "supersede"}})
    compact_payments(sandbox)
    sandbox.start_agents()
    pay(sandbox, {b"account-1": b"before", b"account-2": b"before"})
    eventually(lambda: len(stands(sandbox, "west", {b"account-1", b"account-2"})) == 2)
    ready(sandbox, "west")
    began_s = time.time()
    fail_over(sandbox, traffic, {b"account-1": b"tail", b"account-3": b"tail"})
    sandbox.start("east")
    sandbox.start_agents("east")
    eventually(lambda: {one["state"] for one in said(sandbox, "divergence", "show")} <= {"listed", "renewed"})
    before_s = time.time()
    watched = mrc(sandbox, "watch", begun(sandbox, "failback", "east"))
    assert watched.returncode == 0, watched.stderr
    acked = [ack for ack in traffic.logs().acked if began_s < ack.at_s < before_s]
    copies = read_copies(sandbox.client_config("west", "admin"), TOPICS)
    found = explain(acked, copies, {}, failed_over_to="west")
    assert found.unexplained == {}
    assert (found.emitted, found.superseded) == (0, 0)
    assert found.quarantined >= LEFT_BEHIND / 2
    # East's log of orders was copied again from west's: what was left behind is in no topic of the applications' any more.
    home = {one.id for one in read_copies(sandbox.client_config("east", "admin"), ["orders"])}
    behind = {one.id for one in copies if one.topic == "mrc.recovered.orders"} - {one.id for one in copies if one.topic == "orders"}
    assert behind
    assert not behind & home
    # In that of payments the tail is where it was, and behind it stands what west has of each account.
    accounts = {b"account-1": b"before", b"account-2": b"before"}
    assert stands(sandbox, "west", {*accounts, b"account-3"}) == accounts
    assert stands(sandbox, "east", {*accounts, b"account-3"}) == {**accounts, b"account-3": None}
    assert b"tail" in values(sandbox, "east", "payments", 0).values()
    assert traffic.wait_acked(200, IN_TIME_S, region="east")
    ready(sandbox, "west")


def test_a_region_that_returns_shorter_or_with_a_topic_made_anew_is_refused_and_west_stays_open(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    fail_over(sandbox, traffic)
    (log,) = (sandbox.state.folder / "data").glob("east-*/orders-0/*.log")
    os.truncate(log, log.stat().st_size // 2)
    sandbox.start("east")
    sandbox.start_agents("east")
    assert refused(sandbox) == "LOG_SHORTER"

    admin = AdminClient({**sandbox.client_config("east", "admin")})
    admin.delete_topics(["payments"], request_timeout=IN_TIME_S)["payments"].result(IN_TIME_S)
    eventually(lambda: "payments" not in admin.list_topics(timeout=IN_TIME_S).topics)
    admin.create_topics([NewTopic("payments", 4, 1)], request_timeout=IN_TIME_S)["payments"].result(IN_TIME_S)
    assert refused(sandbox) == "TOPIC_RECREATED"

    before_s = time.time()
    assert traffic.wait_acked(200, IN_TIME_S, region="west")
    copied = {one.id for one in read_copies(sandbox.client_config("west", "admin"), TOPICS)}
    assert {ack.id for ack in traffic.logs().acked if ack.region == "west" and ack.at_s < before_s} <= copied


def new_disks(sandbox: Sandbox) -> None:
    """East dies and comes back without anything; somebody has made one of its topics again, and not all of its ACLs."""
    sandbox.kill("east")
    for node in sandbox.layout.broker_ids():
        shutil.rmtree(sandbox.state.data(broker("east", node)))
    sandbox.start("east")
    admin = AdminClient({**sandbox.client_config("east", "admin")})
    admin.delete_topics(["orders"], request_timeout=IN_TIME_S)["orders"].result(IN_TIME_S)
    wanted = AclBindingFilter(
        ResourceType.TOPIC, "payments", ResourcePatternType.LITERAL, "User:producer", "*", AclOperation.WRITE, AclPermissionType.ALLOW
    )
    assert admin.delete_acls([wanted], request_timeout=IN_TIME_S)[wanted].result(IN_TIME_S)
    eventually(lambda: "orders" not in admin.list_topics(timeout=IN_TIME_S).topics)
    sandbox.start_agents("east")


def test_a_region_with_new_disks_is_made_anew_and_the_unit_goes_home_with_everything_since(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    if record(sandbox)[0] == "east":
        fail_over(sandbox, traffic)
    began_s = time.time()
    new_disks(sandbox)
    assert traffic.wait_acked(200, IN_TIME_S, region="west")
    eventually(lambda: mrc(sandbox, "plan", "rebuild", "east").returncode == 0, lambda: mrc(sandbox, "plan", "rebuild", "east").stdout)
    codes = {one["code"] for one in said(sandbox, "plan", "rebuild", "east")["findings"]}
    assert {"TOPIC_REBUILT", "ACLS_COPIED"} <= codes
    assert mrc(sandbox, "watch", begun(sandbox, "rebuild", "east", "--reason", "new disks")).returncode == 0
    ready(sandbox, "east")
    assert [one for one in said(sandbox, "status")["findings"] if one["severity"] == "error"] == []
    assert written_to(sandbox, "east") == "TOPIC_AUTHORIZATION_FAILED"
    watched = mrc(sandbox, "watch", begun(sandbox, "switchover", "east"))
    assert watched.returncode == 0, watched.stderr
    assert traffic.wait_acked(200, IN_TIME_S, region="east")
    traffic.stop_producers()
    assert traffic.drain(IN_TIME_S)
    told = traffic.logs()
    since = {ack.id for ack in told.acked if ack.at_s > began_s}
    assert since - {one.id for one in read_copies(sandbox.client_config("east", "admin"), TOPICS)} == set()
    for group in traffic.groups():
        assert since - {line.id for line in told.processed if line.group == group} == set(), group


def refused(sandbox: Sandbox) -> str:
    """Begin a failback, return the code with which it waits, and end it; west is open all the while."""
    id = begun(sandbox, "failback", "east")

    def view() -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in said(sandbox, "history") if one["id"] == id)
        return found

    eventually(lambda: view()["status"] == "waiting", view)
    why = str(view()["waits_for"])
    assert mrc(sandbox, "abort", id).returncode == 0
    eventually(lambda: view()["status"] == "aborted", view)
    assert record(sandbox) == ("west", "open")
    return why.partition(":")[0]
