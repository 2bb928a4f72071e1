"""The demo's rules files: the same story ends otherwise under each, as its comment says."""

from __future__ import annotations

import pytest

from mrc.config.conflicts import load_conflicts
from mrc.core.conflict.story import Told, ending
from mrc.sandbox.conflict_demo import FILES, FOLDER

STORY = (
    Told("placed", "east", "Placed"),
    Told("shipped", "west", "Shipped", seen=("placed",)),
    Told("cancelled", "east", "Cancelled"),
)


@pytest.mark.parametrize(
    ("name", "winner", "waits", "on_loss"),
    [
        ("state-precedence", "shipped", False, "shipment-recall"),
        ("last-update-wins", "cancelled", False, ""),
        ("manual", "shipped", True, ""),
    ],
)
def test_the_order_of_the_demo_ends_as_each_file_wants_it(name: str, winner: str, waits: bool, on_loss: str) -> None:
    (kind,) = load_conflicts(FOLDER / f"{name}.yaml")
    end = ending(STORY, "order/17", kind.rules).outcome
    assert end.conflict is not None
    assert (end.winner.id, end.conflict.open) == (winner, waits)
    assert next(rule.on_loss for rule in kind.rules.set.rules if rule.id == end.conflict.rule) == on_loss


def test_every_file_beside_the_demo_is_shown_and_about_a_topic_of_its_own() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(FILES)
    topics = [load_conflicts(FOLDER / f"{name}.yaml")[0].written.topics for name in FILES]
    assert len(set(topics)) == len(FILES)
