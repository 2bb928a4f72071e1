"""Rules files: what is taken, and what is refused with file, line and events that show why."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cel
import msgspec
import pytest

from mrc.config.conflicts import load_conflicts, named_fields, ready
from mrc.config.rule_cases import load_cases
from mrc.core.conflict.rules import RuleSet, StatePrecedence
from mrc.core.conflict.story import Told, ending
from mrc.core.errors import MrcError
from mrc.core.model import decode, encode

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RULES = (EXAMPLES / "conflicts.yaml").read_text()


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "conflicts.yaml"
    path.write_text(text)
    with pytest.raises(MrcError) as raised:
        load_conflicts(path)
    assert raised.value.code == "RULES_INVALID"
    return str(raised.value)


def test_the_example_is_taken() -> None:
    (order,) = load_conflicts(EXAMPLES / "conflicts.yaml")
    assert order.rules.set.rules[0].resolve == StatePrecedence(("Shipped", "Cancelled"))
    assert [rule.id for rule in order.rules.set.rules][-1] == "default"
    assert set(order.rules.conditions) == {"large-amounts-first"}


def test_the_hash_tells_rules_apart(tmp_path: Path) -> None:
    path = tmp_path / "conflicts.yaml"
    hashes = set()
    for text in (RULES, RULES.replace("[Shipped, Cancelled]", "[Cancelled, Shipped]"), RULES + "# a comment\n"):
        path.write_text(text)
        hashes.add(load_conflicts(path)[0].rules.hash)
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("was", "becomes", "line", "words"),
    [
        ("resolve: last_update_wins", "resolve: local_wins", ":29", "for ever"),
        ("resolve: last_update_wins", "resolve: {keep_local: true}", ":29", "east would keep a and west b"),
        ("when: {any_of: [NoteAdded]}", "when: {within: 5s}", ":26", "a and b are in it, b and c are, a and c are not"),
        ("[Shipped, Cancelled]", "[Shipped, Cancelled, Shipped]", ":15", "win against what stands between"),
        ("resolve: {max: amount}", "resolve: {max: amount, min: amount}", ":24", "exactly one rule is wanted, there are 2: max, min"),
        ("resolve: {max: amount}", "resolve: {origin_priority: [west]}", ":22", "it does not rank east"),
        ("resolve: {max: amount}", "resolve: {origin_priority: [west, east, north]}", ":22", "no such region: north"),
        ("resolve: {merge_fields: [note]}", "resolve: {merge_fields: []}", ":25", "it names no field"),
        (
            "resolve: {merge_fields: [note]}",
            "resolve: {merge_fields: [notes]}",
            ":27",
            "notes is not in `fields`, so nobody reads it: it has amount, note",
        ),
        ("resolve: {max: amount}", "resolve: {delta: [count]}", ":24", "count is not in `fields`"),
        ("      - id: default\n        resolve: last_update_wins\n", "", ":25", "the last rule must apply always"),
        ("when: {any_of: [Refunded]}", "when: {}", ":19", "never reached"),
        ("id: default", "id: refunds-by-hand", "", "the name is there twice"),
        ("[Cancelled, Shipped]}\n", "[Cancelled]}\n", ":15", "a pair has two types"),
        ("ttl_s: 86400", "ttl_s: 0", ":21", "more than 0"),
        ("    key: key\n", "    key: key\n    forget_deleted_after_s: 3599\n", ":8", "3600"),
        ("    key: key\n", "    key: key\n    forget_deleted_after_s: 1000000000\n", ":8", "316224000"),
        ("    key: key\n", "    key: key\n    forget_deleted_after_s: 7200.5\n", ":8", "forget_deleted_after_s"),
        ("    key: key\n", "    key: key\n    forget_deleted_after_s: 2h\n", ":8", "forget_deleted_after_s"),
        ("    key: key\n", "    key: key\n    forget_deleted_after_s: null\n", ":8", "forget_deleted_after_s"),
        ("resolve: last_update_wins", "resolve: last_wins", ":29", "last_wins"),
        ("type: json:$.event", "type: json:event", ":8", "header:NAME"),
        ("topics: [orders]", "topics: [orders, orders]", "", "topic orders is there twice"),
        ("regions: [east, west]", "regions: [east, east]", ":3", "region east is there twice"),
        ("regions: [east, west]", "regions: [east]", ":3", "at least 2"),
        ("events.all(e, has(e.fields.amount))", "events.all(e, has(", ":23", "not an expression"),
        ("events.all(e, has(e.fields.amount))", "local == 'east'", ":23", "there is no local"),
        ("events.all(e, has(e.fields.amount))", "true" + " && true" * 100, ":23", "longer than 500"),
        (
            "events.all(e, has(e.fields.amount))",
            "events.all(a, events.all(b, events.all(c, true)))",
            ":23",
            "it could take for ever",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, was: str, becomes: str, line: str, words: str) -> None:
    assert was in RULES
    said = refused(tmp_path, RULES.replace(was, becomes, 1) if was != "id: default" else RULES.replace(was, becomes))
    assert words in said
    assert f"conflicts.yaml{line}" in said


def test_a_file_that_forgets_is_another_version_and_a_story_is_told_by_it(tmp_path: Path) -> None:
    path = tmp_path / "conflicts.yaml"
    hashes, winners = [], []
    told = (Told("gone", "east", deleted=True), Told("back", "west", type="Placed", at_s=7_300))
    for added in ("", "    forget_deleted_after_s: 7200\n", "    forget_deleted_after_s: 86400\n"):
        path.write_text(RULES.replace("    key: key\n", "    key: key\n" + added))
        (order,) = load_conflicts(path)
        hashes.append(order.rules.hash)
        winners.append([one.type for one in ending(told, "order/1", order.rules).conflicts])
        assert decode(encode(order.rules.set), RuleSet) == order.rules.set
    assert hashes[0] == "a26c1bce0fb4a147"  # as before there was this setting
    assert len(set(hashes)) == 3
    assert winners == [["update_deleted"], [], ["update_deleted"]]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\x00", "version: 1\nentities: 3\n", "entities: [3]", "entities: [{rules: [3]}]"])
def test_what_is_no_rules_file_is_refused(tmp_path: Path, text: str) -> None:
    assert "conflicts.yaml" in refused(tmp_path, text)


def test_an_expression_that_fails_lets_its_rule_pass(tmp_path: Path) -> None:
    path = tmp_path / "conflicts.yaml"
    path.write_text(RULES.replace("events.all(e, has(e.fields.amount)) && ", ""))
    (order,) = load_conflicts(path)
    case = load_cases(EXAMPLES / "conflicts.test.yaml")[-1]  # its events have no amount
    (conflict,) = ending(case.events, "order/1", order.rules).conflicts
    assert conflict.rule == "notes-are-merged"
    assert "large-amounts-first does not apply: its expression cannot be evaluated" in " ".join(conflict.steps)


NAMED = {
    "events.all(e, has(e.fields.amount)) && events.exists(e, e.fields.amount > 3)": {"fields"},
    'events.exists(e, e.type == "Shipped" && !e.deleted)': {"type", "deleted"},
    "events[0].origin < events[1].origin && events[0] . at_ms > events[1].at_ms": {"origin", "at_ms"},
    "events.all(e, events.exists(f, f.id != e.id && f.origin == e.origin))": {"id", "origin"},
    'events.map(e, e.type) == ["Shipped", "Cancelled"] && size(events) == events.size()': {"type"},
    'events.exists(type, type.type == "Cancelled")': {"type"},
    'events.exists(e, "e.deleted" == e.type)': {"type"},
    'events.all(e, e.id != "\\"e")': {"id"},
    "events.all(events, events.deleted)": {"deleted"},
    "1 < 2": set(),
}
"""Expressions and the fields of events that they look at."""

WHOLE = (
    "events[0] == events[1]",
    "events.all(e, size(e) == 7)",
    'events.all(e, e["type"] == "Shipped")',
    'events[0]["type"] == events[1].type',
    'events.all(e, "types" in e)',
    'events.all(e, e.exists(name, name == "at_ms"))',
    'events.filter(e, e.type == "Shipped") == [events[0]]',
    'events.all(e, {"e": e}.e.deleted)',
    'events.exists(e, e == e && e.type == "Shipped")',
    'events.all(e, r"\\" + string(size(e)) == "\\\\7" || e.type == "")',
    'events.all(e, e.type != """ " """ && size(e) == 7)',
    'size(events.map(e, [e])[0]) == 1 && events.map(e, e)[1].type == "Shipped"',
)
"""Expressions that look at an event as a whole, or may."""


def some_events(choose: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "type": choose.choice(("Shipped", "Cancelled", "")),
            "types": choose.sample(["Shipped", "Cancelled"], choose.randrange(3)),
            "origin": choose.choice(("east", "west")),
            "id": str(choose.randrange(3)),
            "deleted": choose.random() < 0.5,
            "at_ms": choose.randrange(3),
            "fields": {"amount": choose.randrange(6)} if choose.random() < 0.7 else {},
        }
        for _ in range(2)
    ]


@pytest.mark.parametrize("text", [*NAMED, *WHOLE])
def test_an_expression_comes_to_the_same_with_the_fields_alone_that_it_looks_at(text: str) -> None:
    rules = load_conflicts(EXAMPLES / "conflicts.yaml")[0].rules.set
    rule = next(rule for rule in rules.rules if rule.when.expr)
    told = msgspec.structs.replace(rule, when=msgspec.structs.replace(rule.when, expr=text))
    condition = ready(msgspec.structs.replace(rules, rules=(told, rules.rules[-1]))).conditions[rule.id]
    program, choose, answers = cel.compile(text), random.Random(text), set()
    for _ in range(200):
        events = some_events(choose)
        try:
            right = program.execute({"events": events})
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            with pytest.raises(type(error)):
                condition(events)
        else:
            assert condition(events) == right, events
            answers.add(right)
    assert answers


def test_the_fields_that_an_expression_looks_at() -> None:
    for text, names in NAMED.items():
        found = named_fields(text)
        assert found is not None
        assert found == names, text
    assert [text for text in WHOLE if named_fields(text) is not None] == []
