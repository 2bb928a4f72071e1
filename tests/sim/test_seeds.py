"""Seeds of the simulation: promises hold in all of them, a seed is its run, and bugs that are put in are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrc.sim.faults import happenings
from mrc.sim.run import Outcome, run
from mrc.sim.shrinking import replay_command, shrink
from tests.sim.bugs import BUGS, Bug

HERE = Path(__file__).parent
SEEDS = int(os.environ.get("MRC_SIM_SEEDS", "500"))
PARTS = 20
KEPT = [int(line.split()[0]) for line in (HERE / "seeds.txt").read_text().splitlines() if line and not line.startswith("#")]


def said(outcome: Outcome) -> str:
    return "\n".join([replay_command(outcome), *(f"{v.code} {v.message}" for v in outcome.violations)])


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_in_every_seed(part: int) -> None:
    failed = [said(outcome) for seed in range(part, SEEDS, PARTS) if (outcome := run(seed)).violations]
    assert failed == []


@pytest.mark.parametrize("seed", KEPT)
def test_every_promise_holds_in_seeds_that_once_failed(seed: int) -> None:
    outcome = run(seed)
    assert outcome.violations == (), said(outcome)


TOLD = "from mrc.sim.run import run\nfor seed in (3, 17): print(run(seed).trace)"


def test_a_seed_gives_the_same_run_byte_for_byte_whatever_the_hash_seed() -> None:
    def traces(hash_seed: str) -> list[str]:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(HERE.parents[1])}
        answer = subprocess.run([sys.executable, "-c", TOLD], env=environment, capture_output=True, text=True, timeout=120, check=True)
        return answer.stdout.split()

    here = [run(seed).trace for seed in (3, 17)]
    assert traces("1") == traces("4242") == here
    assert here[0] != here[1]


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_bug_is_found_by_the_seed_of_the_table(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bug.seed < 2_000
    assert run(bug.seed).violations == ()
    bug.put_in(monkeypatch)
    assert bug.code in {violation.code for violation in run(bug.seed).violations}


def test_shrinking_leaves_nothing_that_can_be_left_out_and_the_command_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS["the last stable offset is forgotten"]
    bug.put_in(monkeypatch)
    first = run(bug.seed)
    small = shrink(first)
    assert small.violations[0].code == first.violations[0].code
    kept = set(range(len(happenings(bug.seed)))) - set(small.left_out)
    assert 0 < len(kept) < len(happenings(bug.seed))
    for index in kept:
        again = run(bug.seed, left_out={*small.left_out, index})
        assert first.violations[0].code not in {violation.code for violation in again.violations}
    assert replay_command(small) == f"mrc sim --seed {bug.seed} --leave-out {','.join(map(str, small.left_out))}"
    assert run(bug.seed, left_out=small.left_out).trace == small.trace
