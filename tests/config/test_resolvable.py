"""Rules that a resolver is to run by: what does not fit it is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.config import check
from mrc.config.conflicts import load_resolvable, ready
from mrc.core.conflict.rules import Rule, RuleSet, Simple, When
from mrc.core.conflict.story import Told, ending
from mrc.core.errors import MrcError
from mrc.core.model import Region
from tests.config.example import write_example

RULES = """\
version: 1
regions: [east, west]
entities:
  - name: order
    topics: [orders]
    key: key
    type: json:$.event
    detection: causal
    rules:
      - {id: default, resolve: last_update_wins}
"""
ACTIVE = {"mode: active-passive": "mode: active-active", "policy: identity": "policy: default"}


def resolvable(folder: Path, **changes: str) -> str:
    """What is said of the file with these changes; empty: it is taken."""
    text = RULES
    for old, new in changes.items():
        assert f"{old}: " in text
        text = "\n".join(f"{line.partition(old)[0]}{old}: {new}" if f"{old}: " in line else line for line in text.splitlines())
    path = folder / "conflicts.yaml"
    path.write_text(text + "\n")
    try:
        load_resolvable(path, [Region("east"), Region("west")], ["orders", "payments"])
    except MrcError as error:
        return f"{error.code} {error.where}: {error.message}".replace(f"{folder}/", "")
    return ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"regions": "[west, east]"}, ""),
        ({"regions": "[east, north]"}, "conflicts.yaml:2 regions: east, north: the replication group's regions are east, west"),
        ({"topics": "[orders, payments]"}, "conflicts.yaml:5 entities[0].topics: events about one order must be in one topic"),
        (
            {"topics": "[carts]"},
            "conflicts.yaml:5 entities[0].topics[0]: carts is no topic of the replication group; allowed: orders, payments",
        ),
        ({"key": "json:$.id"}, "conflicts.yaml:6 entities[0].key: json:$.id does not say in which partition an event is; allowed: key"),
        ({"detection": "watermark"}, ""),
        ({"detection": "window"}, "conflicts.yaml:8 entities[0].detection: "),
        ({"type": "$.event"}, "conflicts.yaml:7 entities[0].type"),
    ],
)
def test_what_no_resolver_does_is_refused_at_its_line(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    found = resolvable(tmp_path, **changes)
    assert found.startswith(f"RULES_INVALID {said}") if said else found == ""


def test_rules_belong_to_active_active_groups_and_must_be_there(tmp_path: Path) -> None:
    named = "    rules: conflicts.yaml\n    groups"
    _, problems = check(write_example(tmp_path, {"    groups": named}))
    assert [(one.key.rpartition(".")[2], "active-passive has one region" in one.message) for one in problems if "rules" in one.key] == [
        ("rules", True),
        ("rules", False),
    ]
    (tmp_path / "conflicts.yaml").write_text(RULES)
    settings, problems = check(write_example(tmp_path, {"    groups": named, **ACTIVE}))
    assert problems == ()
    assert settings is not None
    assert settings.replication_group().rules == tmp_path / "conflicts.yaml"


def test_an_expression_that_compiles_no_more_lets_its_rule_pass_and_every_decision_says_so() -> None:
    regions = (Region("east"), Region("west"))
    rules = (Rule("by-hand", Simple("first_update_wins"), When(expr="events.nonsense(")), Rule("default", Simple("last_update_wins")))
    told = (Told("e", "east", "Placed"), Told("w", "west", "Shipped"))
    (conflict,) = ending(told, "order/1", ready(RuleSet("order", rules, regions, "json:$.event"))).conflicts
    assert (conflict.rule, conflict.winner) == ("default", "w")
    assert any(
        step.startswith("rule by-hand does not apply: its expression cannot be evaluated: not an expression") for step in conflict.steps
    )
