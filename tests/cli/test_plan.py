"""``mrc plan`` for people: where every group would begin, whatever is known of it."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from mrc.cli.moves import POSITIONS_MAX, plan_table
from mrc.core.views import CheckpointView, PlanView, TranslationView

PLAN = PlanView("orders", "switchover", "east", "west", 3, "switchover", "ab" * 32, (), (), (), ())


def shown(*positions: CheckpointView) -> list[str]:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_table(msgspec.structs.replace(PLAN, positions=positions)))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def at(partition: int, translation: TranslationView, floor: int = -1) -> CheckpointView:
    return CheckpointView("billing", "east", "west", "orders", partition, 1000 + partition, translation, floor, 0.5)


def test_every_position_is_shown_with_what_is_known_of_it() -> None:
    lines = shown(
        at(0, TranslationView("exact", 2000)),
        at(1, TranslationView("bounded", 2001, 17, "records-changed")),
        at(2, TranslationView("unknown", reason="not-yet-replicated"), floor=1900),
        at(3, TranslationView("unknown", reason="never-replicated")),
    )
    assert "billing orders-0 1000 2000 exact 0.5" in lines
    assert "billing orders-1 1001 2001 bounded: up to 17 again 0.5" in lines
    assert "billing orders-2 1002 1900 the last one that was safe: not-yet-replicated 0.5" in lines
    assert "billing orders-3 1003 - none: never-replicated 0.5" in lines


def test_of_very_many_positions_the_rest_is_counted() -> None:
    lines = shown(*(at(n, TranslationView("exact", n)) for n in range(POSITIONS_MAX + 3)))
    assert sum(line.startswith("billing orders-") for line in lines) == POSITIONS_MAX
    assert "and 3 more: --output json has them all" in lines
