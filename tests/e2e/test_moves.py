"""The whole of it on real Kafka, MirrorMaker 2 and ZooKeeper, by the commands that an operator types."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from mrc.sandbox.demo import Demo
from mrc.sandbox.explained import read_copies
from mrc.sandbox.judge import Limits, Verdict
from mrc.sandbox.layout import TOPICS, Options
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.traffic_log import Acked
from mrc.sandbox.world import Sandbox
from tests.e2e.running import IN_TIME_S, begun, eventually, leader, mrc, ready, record, refusal, said, state

pytestmark = pytest.mark.server

KILLS = int(os.environ.get("MRC_KILLS", "2"))
"""How many switchovers lose their leading agent at a random moment."""

DEMOS = (True, False) if os.environ.get("MRC_DEMOS") == "all" else (True,)
"""Whether MirrorMaker works exactly once in the demo; all other tests here let it work at least once."""


OTHER = {"east": "west", "west": "east"}


def promises(verdict: Verdict, home: str) -> None:
    """The demo's promises, written down once more, apart from the judge's own verdict."""
    assert verdict.ok, verdict.reasons
    assert [move.kind for move in verdict.moves] == ["switchover", "switchover", "failover", home]
    for move in verdict.moves:
        assert move.skipped == 0
        assert move.acked > 1000
        assert move.write_block_s is not None
        assert move.rto_s is not None
        if move.kind != "failover":
            assert (move.lost, set(move.reread_per_group.values())) == (0, {0})
        else:
            assert move.lost_per_partition == move.unreplicated_tail_per_partition
            assert not any(move.reread_below_capture.values())


@pytest.mark.parametrize("exactly_once", DEMOS, ids=lambda one: "exactly-once" if one else "at-least-once")
def test_there_and_back_a_region_killed_a_failover_and_the_way_home(exactly_once: bool) -> None:
    folder = state(f"demo-{'exactly-once' if exactly_once else 'plain'}")
    demo = Demo(folder, print, rate=500.0, options=Options(mm2_exactly_once=exactly_once), limits=Limits(None, None))
    try:
        promises(demo.run(), "failback")
    finally:
        demo.sandbox.down()


def test_the_same_under_the_default_policy_where_the_tail_comes_late_and_nothing_is_lost() -> None:
    demo = Demo(state("demo-default"), print, rate=500.0, options=Options(policy="default"), limits=Limits(None, None))
    try:
        verdict = demo.run()
        promises(verdict, "switchover")
        # The old region's records come when it returns: in the end every acknowledged one is there, as its own or as a copy.
        assert sum(move.lost for move in verdict.moves) == 0
        (entry,) = said(demo.sandbox, "divergence", "show")
        assert entry["state"] == "copied", entry
        acked = demo.traffic.logs().acked
        eventually(lambda: not unexplained(demo.sandbox, acked), lambda: unexplained(demo.sandbox, acked))
        flows = {flow["connector"]: flow["connector_state"] for flow in said(demo.sandbox, "status")["flows"]}
        assert flows == {"mrc.orders.east-west": "RUNNING", "mrc.orders.west-east": "RUNNING"}
    finally:
        demo.sandbox.down()


def unexplained(sandbox: Sandbox, acked: Sequence[Acked]) -> dict[str, str]:
    """What is wrong with acknowledged events under the default policy: each stands where it was written, once, and is copied from there,
    never back. One that was sent twice may have been written in both regions.
    """
    own, copied = dict[str, Counter[str]](), dict[str, Counter[str]]()
    for region, other in OTHER.items():
        copies = read_copies(sandbox.client_config(region, "admin"), [*TOPICS, *(f"{other}.{topic}" for topic in TOPICS)])
        own[region] = Counter(one.id for one in copies if one.topic in TOPICS)
        copied[region] = Counter(one.id for one in copies if one.topic not in TOPICS)
    found = {}
    for ack in acked:
        here, there = ack.region, OTHER[ack.region]
        if not 1 <= own[here][ack.id] <= 1 + ack.resent:
            found[ack.id] = f"it stands {own[here][ack.id]} times in {ack.topic} of {here}"
        elif not copied[there][ack.id]:
            found[ack.id] = f"it was not copied from {here}"
        elif not ack.resent and (own[there][ack.id] or copied[here][ack.id]):
            found[ack.id] = f"it came back to {here}, or stands in {ack.topic} of {there} too"
    return found


@pytest.fixture(scope="module")
def estate() -> Iterator[tuple[Sandbox, Traffic]]:
    """A sandbox with its agents and traffic, ready to move to west."""
    folder = state("kills")
    sandbox, traffic = Sandbox(folder), Traffic(folder, folder / "traffic")
    sandbox.up(Options())
    sandbox.start_agents()
    traffic.start(500.0, groups={"billing": 0.0, "shipping": 1.0})
    try:
        yield sandbox, traffic
    finally:
        sandbox.down()


@pytest.mark.parametrize(("target", "kill_after"), [("west", "fence-source"), ("east", "stop-flow"), ("west", "close-source")])
def test_the_leading_agent_may_be_killed_in_the_middle_of_a_move(estate: tuple[Sandbox, Traffic], target: str, kill_after: str) -> None:
    sandbox, traffic = estate
    ready(sandbox, target)
    victim = leader(sandbox, target)
    execution = begun(sandbox, "switchover", target)
    until_s = time.monotonic() + IN_TIME_S
    while time.monotonic() < until_s:
        steps = {s["name"]: s["state"] for e in json.loads(mrc(sandbox, "history").stdout) if e["id"] == execution for s in e["steps"]}
        if steps.get(kill_after) == "done":
            break
    sandbox.kill_agent(victim)
    watched = mrc(sandbox, "watch", execution)
    assert watched.returncode == 0, watched.stderr
    sandbox.start_agent(victim)
    assert json.loads(watched.stdout)["status"] == "succeeded"
    assert traffic.wait_acked(200, IN_TIME_S, region=target)
    ready(sandbox, "east" if target == "west" else "west")


@pytest.mark.parametrize("number", range(KILLS))
def test_the_leading_agent_may_be_killed_at_any_moment_of_a_move(estate: tuple[Sandbox, Traffic], number: int) -> None:
    """Moments are drawn anew in every run, out of the time that a switchover takes here; a failure names its own."""
    sandbox, traffic = estate
    active = record(sandbox)[0]
    target = "east" if active == "west" else "west"
    ready(sandbox, target)
    victim, after_s = leader(sandbox, target), random.SystemRandom().uniform(0.0, 2.5)
    execution = begun(sandbox, "switchover", target)
    time.sleep(after_s)
    sandbox.kill_agent(victim)
    watched = mrc(sandbox, "watch", execution)
    assert watched.returncode == 0, (number, after_s, watched.stderr)
    sandbox.start_agent(victim)
    assert record(sandbox) == (target, "open"), (number, after_s)
    assert traffic.wait_acked(200, IN_TIME_S, region=target), (number, after_s)
    ready(sandbox, active)


def test_every_checkpoint_is_proved_by_reading_both_sides(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, _ = estate
    done = mrc(sandbox, "offsets", "verify")
    assert done.returncode == 0, done.stderr
    verdicts = [one["verdict"] for one in json.loads(done.stdout)]
    assert len(verdicts) == 14
    assert "disagrees" not in verdicts


def test_wrong_requests_get_their_stable_codes(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, _ = estate
    active = record(sandbox)[0]
    for arguments, code, exit_code in (
        (("switchover", "north", "--yes"), "UNKNOWN_REGION", 2),
        (("switchover", active, "--yes"), "ALREADY_ACTIVE", 2),
        (("failover", "east" if active == "west" else "west", "--yes"), "NOT_ATTESTED", 2),
        (("offsets", "list", "--group", "nobody"), "UNKNOWN_GROUP", 2),
        (("offsets", "list", "--topic", "nothing"), "UNKNOWN_TOPIC", 2),
        (("abort", "nothing"), "UNKNOWN_EXECUTION", 2),
    ):
        done = mrc(sandbox, *arguments)
        assert refusal(done)["code"] == code, done.stderr
        assert done.returncode == exit_code


def kept(sandbox: Sandbox, archived: tuple[str, ...], told: Any) -> bool:
    done = mrc(sandbox, "history", *archived)
    return done.returncode == 0 and json.loads(done.stdout) == told


def test_every_move_is_kept_whole_in_both_regions(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, _ = estate
    told = said(sandbox, "history")
    assert told
    for region in ("east", "west"):
        archived = ("--archived", "--region", region)
        eventually(partial(kept, sandbox, archived, told))
        for one in told[:2]:
            assert said(sandbox, "history", one["id"], *archived) == said(sandbox, "history", one["id"])


def test_nothing_was_lost_skipped_or_processed_twice_by_all_these_moves(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, traffic = estate
    traffic.stop_producers()
    assert traffic.drain(IN_TIME_S)
    active = record(sandbox)[0]
    verdict = traffic.judge([], active=active, drained=True)
    assert verdict.lost_after == 0
    assert not any(verdict.reread_before.values())
