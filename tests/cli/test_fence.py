"""``mrc fence``: it finds the open region itself, leaves when the fence is in force, and says how it ends."""

from __future__ import annotations

import json
import subprocess
import threading

import msgspec
import pytest

from mrc.cli.exits import Exit
from mrc.core.model import ActiveRecord, Epoch, Region
from mrc.core.views import FindingView
from tests.cli.running import run
from tests.control.estate import NOW_MS, Estate


def mrc(estate: Estate, *arguments: str, output: str = "json") -> subprocess.CompletedProcess[str]:
    return run("-o", output, "--config", str(estate.path), *arguments, environment={"COLUMNS": "200"})


def error(answer: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    found = json.loads(answer.stderr)["error"]
    return found["code"], found["message"]


@pytest.mark.parametrize("region", [(), ("east",)])
def test_it_ends_when_the_fence_is_in_force_and_somebody_lets_the_region_open_again(estate: Estate, region: tuple[str, ...]) -> None:
    answer = mrc(estate, "fence", *region, "--yes", "--reason", "garbage")
    view = json.loads(answer.stdout)
    assert answer.returncode == Exit.RUNNING, answer.stderr
    assert (view["kind"], view["source"], view["target"], view["status"], view["reason"]) == ("fence", "east", "west", "waiting", "garbage")
    assert f"east is closed to writers until `mrc approve {view['id']}` lets it open again" in answer.stderr
    assert mrc(estate, "approve").returncode == Exit.OK
    assert mrc(estate, "watch", view["id"]).returncode == Exit.OK
    assert estate.world.executions[view["id"]].status == "succeeded"


def test_the_fence_of_a_region_that_was_opened_since_is_carried_out_in_the_other(estate: Estate) -> None:
    estate.world.record = ActiveRecord(Region("west"), "open", Epoch(4), "", NOW_MS)
    view = json.loads(mrc(estate, "fence", "--yes", "--no-wait").stdout)
    assert (view["source"], view["target"]) == ("west", "east")


@pytest.mark.parametrize(
    ("region", "code", "said"), [("west", "BAD_REQUEST", "east is the open region, not west"), ("north", "UNKNOWN_REGION", "east, west")]
)
def test_another_region_than_the_open_one_is_refused(estate: Estate, region: str, code: str, said: str) -> None:
    for words in (("fence", region, "--yes"), ("plan", "fence", region)):
        answer = mrc(estate, *words)
        assert (answer.returncode, error(answer)[0]) == (Exit.USAGE, code)
        assert said in error(answer)[1]
    assert estate.world.executions == {}


def test_without_a_record_nothing_is_guessed(estate: Estate) -> None:
    estate.world.record = None
    estate.world.findings = (FindingView("ZOOKEEPER_UNREACHABLE", "error", "no quorum"),)
    answer = mrc(estate, "fence", "--yes")
    assert (answer.returncode, error(answer)) == (Exit.WORLD, ("ZOOKEEPER_UNREACHABLE", "no quorum"))


def test_a_person_is_asked_for_the_name_of_the_region_that_is_closed(estate: Estate) -> None:
    answer = mrc(estate, "fence", output="table")
    assert "type the region's name to close east to writers" in answer.stderr
    assert "fence of orders: east, epoch 3 -> 4" in answer.stdout
    assert estate.world.executions == {}


def test_it_is_followed_further_where_the_end_of_the_fence_has_failed(estate: Estate) -> None:
    agent = estate.agents["west-b"]
    made = agent.start("orders", "fence", "west", "mine", "somebody", "", False)
    done = tuple(msgspec.structs.replace(step, state="done") for step in made.steps)
    failed = (*done[:2], msgspec.structs.replace(done[2], state="waiting", evidence="NOT_VERIFIED: no"))
    shown = [msgspec.structs.replace(made, status="waiting", waits_for="NOT_VERIFIED: no", steps=failed)]
    ended = msgspec.structs.replace(made, status="succeeded", steps=done, ended_at_ms=NOW_MS)
    agent.execution = lambda id: shown.pop() if shown else ended  # type: ignore[method-assign] # first the failure, then the end
    answer = mrc(estate, "fence", "--yes", "--token", "mine")
    assert "waits: NOT_VERIFIED: no" in answer.stderr
    assert (answer.returncode, json.loads(answer.stdout)["status"]) == (Exit.OK, "succeeded")


def test_a_plan_of_a_fence_needs_no_name_and_the_other_moves_do(estate: Estate) -> None:
    view = json.loads(mrc(estate, "plan", "fence").stdout)
    assert [step["name"] for step in view["steps"]] == ["preflight", "fence-source", "reopen-source"]
    answer = mrc(estate, "plan", "switchover")
    assert (answer.returncode, error(answer)) == (Exit.USAGE, ("BAD_REQUEST", "Missing argument 'REGION'."))


def test_a_record_that_is_kept_back_for_a_moment_is_asked_for_again(estate: Estate) -> None:
    record, estate.world.record = estate.world.record, None
    estate.world.findings = (FindingView("ZOOKEEPER_UNREACHABLE", "error", "no answer"),)

    def answers_again() -> None:
        estate.world.record, estate.world.findings = record, ()

    threading.Timer(2.0, answers_again).start()
    answer = mrc(estate, "fence", "--yes", "--no-wait")
    assert json.loads(answer.stdout)["source"] == "east", answer.stderr
