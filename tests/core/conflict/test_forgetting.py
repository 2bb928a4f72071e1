"""What is forgotten is a function of the order of events alone, as an independent oracle says, whatever portions they are taken in."""

from __future__ import annotations

import random
import zlib
from typing import Any

import msgspec
import pytest

from mrc.core.conflict import taking
from mrc.core.conflict.entity import Rules
from mrc.core.conflict.events import EntityEvent, Hlc, order
from mrc.core.conflict.taking import Answered, Final, Kept, Pending, Wrong, memory_at, taken
from tests.core.conflict import oracle
from tests.core.conflict.histories import ASKING, ENTITY, RULES, Made, make
from tests.core.conflict.test_convergence import HISTORIES, plain, rule_set

FORGETS_S = 8
SLOWER = 20
"""Clocks of a history times this: then many events, but not all, are more than `FORGETS_S` apart."""


def history(seed: int) -> Made:
    """A history of an entity that is deleted often, and then left alone for a while; some numbers begin anew, as they must not."""
    choose = random.Random(seed)
    made = make(seed)
    made.rules = choose.choice(ASKING if choose.random() < 0.3 else RULES)
    for log in made.logs.values():
        log[:] = [
            msgspec.structs.replace(
                one,
                hlc=Hlc(one.hlc.wall_ms * SLOWER, one.hlc.counter),
                deleted=choose.random() < 0.6,
                number=one.number if choose.random() < 0.8 else choose.randrange(1, 4),
            )
            for one in log
        ]
    return made


def forgetful(made: Made) -> Rules:
    rules = rule_set(made)
    return Rules(msgspec.structs.replace(rules.set, forget_deleted_after_s=FORGETS_S))


def cannot_be_read(event: EntityEvent) -> bool:
    return zlib.crc32(event.id.encode()) % 6 == 0


def wanted(made: Made) -> list[tuple[str, str, str]]:
    events = [{**plain(one), "memory_ms": one.hlc.wall_ms - FORGETS_S * 1000, "refused": cannot_be_read(one)} for one in made.events]
    return oracle.audit(ENTITY, events, [], made.rules, made.regions, (2**47, 0))[0]


def resolved(made: Made, rules: Rules, choose: random.Random | None) -> list[tuple[str, str, str]]:
    """Every conflict, where events are taken in portions; None: all at once.

    Between some of them what is to be forgotten is let go, and with some of them events of before come again, late.
    """
    wrong = Wrong("no-type", "")
    pending = [Pending(b"", one, None, 0, new=True, wrong=wrong if cannot_be_read(one) else None) for one in made.events]
    pending.sort(key=lambda one: order(one.event, rules.ranks))
    kept, memory_ms, told = Kept(), -1, list[tuple[str, str, str]]()
    before, before_ms = list[Pending](), -1
    ends = [2**47] if choose is None else [*(one.event.hlc.wall_ms + choose.choice((0, 0, 1_000, 5_000)) for one in pending), 2**47]
    for end_ms in ends:
        due = [one for one in pending if one.event.hlc <= Hlc(end_ms)]
        pending = pending[len(due) :]
        first = list(due)
        if choose is not None and before_ms < end_ms < 2**47:
            for one in choose.sample(before, min(len(before), choose.choice((0, 1, 3)))):
                hlc = Hlc(choose.randrange(before_ms, end_ms), one.event.number)
                due.append(msgspec.structs.replace(one, event=msgspec.structs.replace(one.event, hlc=hlc), said_ms=one.says_ms))
        before, before_ms = before + first, max(before_ms, end_ms)
        if choose is not None and choose.random() < 0.3:
            choose.shuffle(due)
        for step in taken(kept, due, [], rules, Hlc(end_ms), memory_ms):
            found = step.conflict if isinstance(step, Answered) else step.outcome.conflict if step.outcome is not None else None
            if found is not None:
                told.append((found.id, found.winner, "open" if found.open else found.closed or "rule"))
        memory_ms = memory_at(end_ms, rules, memory_ms)
        if choose is not None and choose.random() < 0.5 and kept.is_forgotten(memory_ms):
            kept = Kept()
    return told


def judge(seed: int) -> str:
    made = history(seed)
    rules, right = forgetful(made), wanted(made)
    for portions in (None, random.Random(seed), random.Random(seed + 1)):
        if (told := resolved(made, rules, portions)) != right:
            return f"seed {seed}, {'at once' if portions is None else 'in portions'}: {told} instead of {right}"
    return ""


def test_what_is_forgotten_depends_on_the_order_alone_and_is_what_the_oracle_says() -> None:
    assert [words for seed in range(HISTORIES) if (words := judge(seed))][:3] == []


def test_in_the_histories_much_is_forgotten_and_that_changes_what_is_decided() -> None:
    other = 0
    for seed in range(1_000):
        made = history(seed)
        remembered: list[dict[str, Any]] = [plain(one) for one in made.events]
        other += oracle.audit(ENTITY, remembered, [], made.rules, made.regions, (2**47, 0))[0] != wanted(made)
    assert other > 100


def latest_head_ms(kept: Kept) -> int:
    return max((register.head.hlc.wall_ms for register in kept.entity.registers.values()), default=kept.passed_ms)


@pytest.mark.parametrize("broken", ["where it is let go", "by what is final", "and takes what comes again", "and not what was refused"])
def test_forgetting_by_anything_else_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match broken:
        case "where it is let go":
            monkeypatch.setattr(Kept, "begin_anew", lambda _: None)
        case "by what is final":
            monkeypatch.setattr(taking, "memory_at", lambda _clock_ms, _rules, before_ms: before_ms)
        case "and takes what comes again":
            monkeypatch.setattr(Pending, "says_ms", property(lambda one: one.event.hlc.wall_ms))
        case _:
            monkeypatch.setattr(Kept, "latest_ms", property(latest_head_ms))
    assert sum(bool(judge(seed)) for seed in range(500)) > 5


def test_an_event_from_before_the_memory_is_refused_and_leaves_nothing_behind() -> None:
    made = history(0)
    rules, event = forgetful(made), made.events[0]
    at_ms = event.hlc.wall_ms + 10_000
    for said_ms, refused in ((at_ms - FORGETS_S * 1000, False), (at_ms - FORGETS_S * 1000 - 1, True)):
        kept = Kept()
        late = Pending(b"", msgspec.structs.replace(event, hlc=Hlc(at_ms, event.number)), None, 0, new=True, said_ms=said_ms)
        (step,) = taken(kept, [late], [], rules)
        assert isinstance(step, Final)
        assert (step.late is not None, step.outcome is None) == (refused, refused)
        assert (kept == Kept()) == refused
