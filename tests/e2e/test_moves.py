"""The whole of it on real Kafka, MirrorMaker 2 and ZooKeeper, by the commands that an operator types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrc.sandbox.demo import Demo
from mrc.sandbox.judge import Verdict
from mrc.sandbox.layout import Options
from mrc.sandbox.traffic import Traffic
from mrc.sandbox.world import Sandbox

pytestmark = pytest.mark.server

BUILD = Path(__file__).resolve().parents[2] / "build" / "e2e"


def state(name: str) -> Path:
    """Return a fresh state folder; it stays when the test fails."""
    folder = BUILD / name
    if folder.exists():
        Sandbox(folder).down(wipe=True)
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def promises(verdict: Verdict) -> None:
    """The demo's promises, written down once more, apart from the judge's own verdict."""
    assert verdict.ok, verdict.reasons
    assert [move.kind for move in verdict.moves] == ["switchover", "switchover", "failover", "switchover"]
    for move in verdict.moves:
        assert move.skipped == 0
        assert move.acked > 1000
        assert move.write_block_s is not None
        assert move.rto_s is not None
        if move.kind == "switchover":
            assert (move.lost, set(move.reread_per_group.values())) == (0, {0})
        else:
            assert move.lost_per_partition == move.unreplicated_tail_per_partition
            assert not any(move.reread_below_capture.values())


@pytest.mark.parametrize("exactly_once", [False, True], ids=["at-least-once", "exactly-once"])
def test_there_and_back_a_region_killed_a_failover_and_the_way_home(exactly_once: bool) -> None:
    folder = state(f"demo-{'exactly-once' if exactly_once else 'plain'}")
    demo = Demo(folder, print, rate=1000.0, options=Options(mm2_exactly_once=exactly_once))
    try:
        promises(demo.run())
    finally:
        demo.sandbox.down()


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


def mrc(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mrc", "--config", str(sandbox.config_path), "--output", "json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "COLUMNS": "200"})


def ready(sandbox: Sandbox, target: str) -> None:
    until_s = time.monotonic() + 60
    while True:
        done = mrc(sandbox, "plan", "switchover", target)
        if done.returncode == 0:
            positions = json.loads(done.stdout)["positions"]
            if positions and all(p["translation"]["type"] == "exact" for p in positions):
                return
        assert time.monotonic() < until_s, done.stdout + done.stderr
        time.sleep(0.5)


def leader(sandbox: Sandbox, region: str) -> str:
    view = json.loads(mrc(sandbox, "status").stdout)
    return str(next(r["leader"] for r in view["regions"] if r["region"] == region))


@pytest.mark.parametrize(("target", "kill_after"), [("west", "fence-source"), ("east", "stop-flow"), ("west", "close-source")])
def test_the_leading_agent_may_be_killed_in_the_middle_of_a_move(estate: tuple[Sandbox, Traffic], target: str, kill_after: str) -> None:
    sandbox, traffic = estate
    ready(sandbox, target)
    victim = leader(sandbox, target)
    started = mrc(sandbox, "switchover", target, "--yes", "--no-wait")
    assert started.returncode == 4, started.stderr
    execution = json.loads(started.stdout)["id"]
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        steps = {s["name"]: s["state"] for e in json.loads(mrc(sandbox, "history").stdout) if e["id"] == execution for s in e["steps"]}
        if steps.get(kill_after) == "done":
            break
    sandbox.kill_agent(victim)
    watched = mrc(sandbox, "watch", execution)
    assert watched.returncode == 0, watched.stderr
    sandbox.start_agent(victim)
    assert json.loads(watched.stdout)["status"] == "succeeded"
    assert traffic.wait_acked(200, 30.0, region=target)
    ready(sandbox, "east" if target == "west" else "west")


def test_every_checkpoint_is_proved_by_reading_both_sides(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, _ = estate
    done = mrc(sandbox, "offsets", "verify")
    assert done.returncode == 0, done.stderr
    verdicts = [one["verdict"] for one in json.loads(done.stdout)]
    assert len(verdicts) == 14
    assert "disagrees" not in verdicts


def test_wrong_requests_get_their_stable_codes(estate: tuple[Sandbox, Traffic]) -> None:
    sandbox, _ = estate
    active = json.loads(mrc(sandbox, "status").stdout)["record"]["region"]
    for arguments, code, exit_code in (
        (("switchover", "north", "--yes"), "UNKNOWN_REGION", 2),
        (("switchover", active, "--yes"), "ALREADY_ACTIVE", 2),
        (("failover", "east" if active == "west" else "west", "--yes"), "NOT_ATTESTED", 2),
        (("offsets", "list", "--group", "nobody"), "UNKNOWN_GROUP", 2),
        (("offsets", "list", "--topic", "nothing"), "UNKNOWN_TOPIC", 2),
        (("abort", "nothing"), "UNKNOWN_EXECUTION", 2),
    ):
        done = mrc(sandbox, *arguments)
        assert json.loads(done.stderr[done.stderr.index("{") :])["error"]["code"] == code, done.stderr
        assert done.returncode == exit_code


def test_nothing_was_lost_skipped_or_processed_twice_by_all_these_moves(estate: tuple[Sandbox, Traffic]) -> None:
    _, traffic = estate
    traffic.stop_producers()
    assert traffic.drain(60.0)
    verdict = traffic.judge([], active="east", drained=True)
    assert verdict.lost_after == 0
    assert not any(verdict.reread_before.values())
