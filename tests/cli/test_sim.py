"""``mrc sim`` as its users run it."""

from __future__ import annotations

import json

import pytest

from mrc.cli.exits import Exit
from tests.cli.running import run


def test_a_seed_is_shown_with_what_happened_in_it_and_replays() -> None:
    first, second = (run("sim", "--seed", "3", "--output", "json") for _ in range(2))
    assert first.returncode == Exit.OK
    assert first.stdout == second.stdout
    said = json.loads(first.stdout)
    assert (said["seed"], said["violations"]) == (3, [])
    assert len(said["trace"]) == 64
    assert said["happened"]


def test_a_span_of_seeds_is_summed_up() -> None:
    said = json.loads(run("sim", "--seeds", "3..5", "-o", "json").stdout)
    assert (said["first"], said["last"], said["seeds"], said["failed"]) == (3, 5, 3, [])
    assert said["seeds_per_minute"] > 0


def test_what_is_left_out_does_not_happen() -> None:
    everything = json.loads(run("sim", "--seed", "3", "-o", "json").stdout)
    less = json.loads(run("sim", "--seed", "3", "--leave-out", "0", "-o", "json").stdout)
    assert less["happened"] == everything["happened"][1:]
    assert less["trace"] != everything["trace"]


def test_the_trace_is_talk() -> None:
    answer = run("sim", "--seed", "3", "--trace", "-o", "json")
    assert json.loads(answer.stdout)["seed"] == 3
    assert "record: west draining" in answer.stderr or "record: east draining" in answer.stderr or "record: west closed" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --seed or --seeds"),
        (("--seed", "1", "--seeds", "1..2"), "give either --seed or --seeds"),
        (("--seeds", "5..1"), "'5..1' is no span of seeds"),
        (("--seeds", "1-5"), "'1-5' is no span of seeds"),
        (("--seed", "1", "--leave-out", "99"), "does not name happenings of seed 1"),
        (("--seed", "1", "--leave-out", "x"), "does not name happenings of seed 1"),
        (("--seeds", "1..2", "--trace"), "speak of one seed"),
    ],
)
def test_what_is_asked_wrongly_is_said(arguments: tuple[str, ...], said: str) -> None:
    answer = run("sim", *arguments)
    assert answer.returncode == Exit.USAGE
    assert said in answer.stderr
