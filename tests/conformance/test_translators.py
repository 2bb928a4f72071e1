"""Every case on real Kafka and MirrorMaker 2: what mrc answers, judged by the events that a group would then meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from tests.conformance.case import RUN, Case, Check, Place, Variant, both
from tests.conformance.cases import CASES
from tests.conformance.logs import records
from tests.conformance.running import GARBLED, Run, wrong
from tests.conformance.strategies import MirrorMaker, checkpoint, heartbeat, sync
from tests.conformance.want import EXACT, REASONS

pytestmark = pytest.mark.server

in_each_variant = pytest.mark.parametrize("done", RUN, indirect=True, scope="module")


def _marks(xfail: Mapping[Variant, str], variant: Variant) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.xfail(reason=xfail[variant], raises=AssertionError, strict=True),) if variant in xfail else ()


def _parameters(things: Callable[[Case], Iterable[Place | Check]]) -> Iterator[Any]:
    for variant in RUN:
        for case in CASES:
            for thing in things(case):
                if variant in thing.variants:
                    yield pytest.param(variant, case, thing, id=f"{variant}-{case.name}-{thing.label}", marks=_marks(thing.xfail, variant))


def _cases() -> Iterator[Any]:
    for variant in RUN:
        for case in CASES:
            yield pytest.param(variant, case, id=f"{variant}-{case.name}", marks=_marks(case.sweep_xfail, variant))


@pytest.mark.parametrize(("done", "case", "place"), list(_parameters(lambda case: case.places)), indirect=["done"], scope="module")
def test_a_committed_position_is_answered_as_it_should_be_and_skips_nothing(done: Run, case: Case, place: Place) -> None:
    position, answer = done.place(case, place)
    said = f"{position.topic}-{position.partition} at {position.committed}: {answer}"
    if answer.floor >= 0:
        assert not done.cost(case, position, answer.floor).skipped, f"the position that stands skips: {said}"
    if answer.offset is not None:
        cost = done.cost(case, position, answer.offset)
        problem = wrong(cost, answer.kind, answer.repeats_max)
        assert not problem, f"{problem}: {said}"
    if answer.kind in REASONS:
        assert answer.reason in REASONS[answer.kind], f"the reason is not a stable one: {said}"
    assert place.want.takes(answer.kind, answer.reason), f"wanted {place.want}: {said}"


@pytest.mark.parametrize(("done", "case"), list(_cases()), indirect=["done"], scope="module")
def test_no_offset_of_either_log_is_translated_so_that_it_skips_or_breaks_its_word(done: Run, case: Case) -> None:
    wrong = [one for one in done.swept[case.name] if one.wrong]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize(("done", "case", "check"), list(_parameters(lambda case: case.checks)), indirect=["done"], scope="module")
def test_what_else_must_hold_of_the_case(done: Run, case: Case, check: Check) -> None:
    check.holds(done, case)


@in_each_variant
def test_everything_came_to_rest_in_time(done: Run) -> None:
    assert not done.unsettled


@in_each_variant
def test_no_answer_that_was_ever_given_skips(done: Run) -> None:
    known = {case.name: case for case in CASES}
    cases = {name: case for name, case in known.items() if not case.anew and not case.sweep_xfail}
    told = [(position, offset) for position, offset in done.early if position.case in cases]
    assert len(told) >= len(cases)
    costs = {(position, offset): done.cost(cases[position.case], position, offset) for position, offset in told}
    assert not [(one, cost) for one, cost in costs.items() if cost.skipped]


@in_each_variant
def test_checkpoints_never_go_back_unless_their_group_does(done: Run) -> None:
    backwards = []
    anew = {case.name for case in CASES if case.anew}  # earlier answers were of other logs
    for position in (position for position in done.positions.values() if position.case not in anew):
        last_source = last_floor = -1
        for row in done.history(position.group, position.topic, position.partition):
            if row["source_offset"] >= last_source and 0 <= row["floor"] < last_floor and row["translation"]["type"] == "exact":
                backwards.append((position, row))
            last_source, last_floor = row["source_offset"], row["floor"]
    assert not backwards


@in_each_variant
def test_an_agent_that_starts_anew_says_what_was_said_before(done: Run) -> None:
    anew = {case.topic for case in CASES if case.anew}
    for name, rows in done.rows.items():
        before = {key: (row["source_offset"], row["translation"]["type"], row["translation"]["offset"]) for key, row in rows.items()}
        after = {
            key: (row["source_offset"], row["translation"]["type"], row["translation"]["offset"])
            for key, row in done.restarted.get(name, {}).items()
            if key in before
        }
        assert {k: v for k, v in after.items() if k[1] not in anew} == {k: v for k, v in before.items() if k[1] not in anew}


@in_each_variant
def test_an_agent_that_starts_anew_deletes_no_checkpoint(done: Run) -> None:
    assert not done.tombstoned()


@in_each_variant
def test_records_that_cannot_be_read_are_ignored_and_told_of(done: Run) -> None:
    found = [one for ones in done.findings.values() for one in ones if one["code"] == "GARBLED_RECORD"]
    assert any(GARBLED.decode() in one["message"] for one in found), found


@in_each_variant
@pytest.mark.parametrize(
    ("topic", "again"),
    [
        ("east.checkpoints.internal", lambda key, value: checkpoint(key, value).encoded()),
        ("mm2-offset-syncs.east.internal", lambda key, value: sync(key, value).encoded()),
        ("heartbeats", lambda key, value: heartbeat(key, value).encoded()),
    ],
)
def test_mirrormakers_own_records_are_understood_byte_for_byte(
    done: Run, topic: str, again: Callable[[bytes, bytes], tuple[bytes, bytes]]
) -> None:
    found, _ = records(done.stage.config("west"), [(topic, 0)], "read_committed")
    rows = [(r.key, r.value) for r in found[topic, 0] if r.key is not None and r.value is not None]
    assert rows
    assert [again(key, value) for key, value in rows] == rows


@in_each_variant
def test_the_oracle_tells_guesses_from_answers(done: Run) -> None:
    """The other strategies are worse, and the cases show it: MirrorMaker repeats, the same offset and timestamps skip."""
    skipped = dict.fromkeys(done.answers, 0)
    repeated = dict.fromkeys(done.answers, 0)
    for case in CASES:
        for place in case.places:
            position = done.positions[case.name, place.label]
            for name, answers in done.answers.items():
                offset = answers[position].offset
                if offset is not None and position.target_where in done.targets:
                    cost = done.cost(case, position, offset)
                    skipped[name] += len(cost.skipped)
                    repeated[name] += cost.repeated if place.want == EXACT else 0
    assert skipped["identity"] > 0
    assert skipped["timestamp"] > 0
    assert repeated["mm2"] > 0
    assert repeated["exact"] == 0


def test_names_are_unique_and_say_which_scenario() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all(len({place.label for place in case.places}) == len(case.places) for case in CASES)
    assert both("") == {"plain": "", "exactly-once": ""}
    assert MirrorMaker.name == "mm2"
