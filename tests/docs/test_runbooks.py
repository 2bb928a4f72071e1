"""Shipped runbooks say to people what they must; what they and the documents show can be run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mrc.config import load_runbook
from mrc.core.failover import diagram
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.page import markdown
from mrc.core.failover.plan import TEXTS, as_seen, lint, make_plan, unexplained
from mrc.core.failover.runbook import Runbook
from mrc.core.model import Epoch, Region
from tests.docs.reading import ROOT, blocks
from tests.docs.test_commands import commands_of, parse

SHIPPED = sorted((ROOT / "runbooks").glob("*.yaml"))
TOOLS = {
    "kafka-acls.sh",
    "kafka-console-consumer.sh",
    "kafka-console-producer.sh",
    "kafka-consumer-groups.sh",
    "kafka-get-offsets.sh",
    "kafka-topics.sh",
    "kafka-transactions.sh",
}


def fragments() -> list[list[dict[str, Any]]]:
    """The lists of steps that the document shows."""
    return [yaml.safe_load(block.text) for block in blocks((ROOT / "docs" / "runbooks.md").read_text()) if block.language == "yaml"]


def with_steps(steps: list[dict[str, Any]], folder: Path) -> Runbook:
    """The shipped switchover with the steps in it: keys of a step that it has are laid over it, another stands right behind preflight."""
    book = yaml.safe_load((ROOT / "runbooks" / "switchover.yaml").read_text())
    there = {step["name"]: step for step in book["steps"]}
    for step in steps:
        if step["name"] in there:
            there[step["name"]].update(step)
        else:
            book["steps"].insert(1, step)
    path = folder / "switchover.yaml"
    path.write_text(yaml.safe_dump(book, sort_keys=False))
    return load_runbook(path)[0]


@pytest.mark.parametrize("steps", fragments(), ids=lambda steps: steps[0]["name"])
def test_every_example_of_the_document_is_a_step_without_a_fault(steps: list[dict[str, Any]], tmp_path: Path) -> None:
    book = with_steps(steps, tmp_path)
    assert lint(book) == ()
    assert unexplained(book) == ()
    plan = make_plan(
        as_seen(book, source_reachable=True),
        "",
        execution="",
        replication_group="",
        source=Region("east"),
        target=Region("west"),
        epoch=Epoch(1),
        now_ms=0,
        token="",
        attested=False,
        actor="",
        reason="",
    )
    assert {step["name"] for step in steps} <= {step.name for step in plan.steps}


def test_every_custom_step_has_an_example() -> None:
    shown = {step["action"] for steps in fragments() for step in steps}
    assert {name for name, action in ACTIONS.items() if action.custom} <= shown


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_runbook_has_no_fault_and_says_everything(path: Path) -> None:
    book, _ = load_runbook(path)
    assert path.stem == book.runbook == book.kind
    assert lint(book) == ()
    assert unexplained(book) == ()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_commands_of_a_shipped_runbook_are_shell_and_name_tools_that_there_are(path: Path) -> None:
    shell = [block.text for block in blocks(markdown(*load_runbook(path))) if block.language == "sh"]
    assert len(shell) > len(load_runbook(path)[0].steps)
    for text in shell:
        assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).stderr == ""
        assert set(re.findall(r"kafka-[a-z-]+\.sh", text)) <= TOOLS


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_calls_of_mrc_in_a_shipped_runbook_are_ones_that_it_takes(path: Path) -> None:
    calls = [call for call in re.findall(r"`(mrc [^`\n]+)`", path.read_text()) if "\n" not in call]
    assert calls
    for words in (words for call in calls for words in commands_of(call)):
        parse(words, whole=False)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_page_says_everything_about_every_step(path: Path) -> None:
    book, digest = load_runbook(path)
    _, *parts = re.split(r"^## \d+\. ", markdown(book, digest), flags=re.MULTILINE)
    assert [part.splitlines()[0] for part in parts] == [step.name for step in book.steps]
    for step, part in zip(book.steps, parts, strict=True):
        assert ACTIONS[step.action].does[1:] in part
        for text in TEXTS:
            assert getattr(step, text).strip() in part
        assert f"Time-out: {step.timeout_s:g} s a try" in part
        assert ("point of no return" in part.splitlines()[2]) == (step.action == "open-target")
        assert ("or abort" in part) == (step.name not in ("open-target", "route", "reverse-flow", "canary"))
    assert re.findall(r"^\*\*(.*?)\.\*\*", parts[0], re.MULTILINE) == ["What", "Why", "By hand", "Check", "What can go wrong"]


def test_a_page_says_who_approves_what_follows_a_failure_and_what_is_left_out(tmp_path: Path) -> None:
    changed: list[dict[str, Any]] = [
        {"name": "open-target", "approval": {"by": "another", "timeout_s": 900}},
        {"name": "drain", "on_failure": "undo", "approval": True},
        {"name": "canary", "on_failure": "go-on", "only_if": "source-unreachable"},
        {"name": "own", "action": "notify", "parameters": {"url": "http://chat/"}, "retries": 0},
    ]
    text = markdown(with_steps(changed, tmp_path), "")
    assert "Approval: by somebody else than who began the move, within 900 s, else the move is undone." in text
    assert "Approval: by a person." in text
    assert "After the last failure: the move is undone." in text
    assert "After the last failure: the move goes on without it." in text
    assert "Only if, when the move is planned, the source is unreachable." in text
    assert 'Parameters: `{"url":"http://chat/"}`.' in text
    assert "Nothing is said about it." in text


def test_a_drawing_shows_every_step_and_where_each_way_leads(tmp_path: Path) -> None:
    changed: list[dict[str, Any]] = [
        {"name": "fence-source", "approval": {"timeout_s": 60}},
        {"name": "drain", "on_failure": "undo", "retries": 0},
        {"name": "route", "on_failure": "go-on", "retries": 1},
        {"name": "canary", "only_if": "source-reachable", "approval": True},
        {"name": "own", "action": "notify", "parameters": {"url": "http://chat/"}},
    ]
    book = with_steps(changed, tmp_path)
    lines = [line.strip() for line in diagram.steps(book).splitlines()]
    at = {step.name: number for number, step in enumerate(book.steps)}
    assert lines[0] == "flowchart TD"
    for name, number in at.items():
        assert sum(line.startswith(f"s{number}[") for line in lines) == 1, name
    own, fence, drain, opening, route, reverse, canary = (
        at[name] for name in ("own", "fence-source", "drain", "open-target", "route", "reverse-flow", "canary")
    )
    assert f"s{own} --> a{fence}" in lines
    assert not any(line.startswith(f"s{own} -.") for line in lines)
    assert lines[lines.index(f"s{own} --> a{fence}") + 1].endswith(f" -- approved --> s{fence}")
    assert f"a{fence} -. abort or after 60 s .-> back" in lines
    assert f"s{fence} -. fails 3 times .-> ask" in lines
    assert f"s{drain} -. fails .-> back" in lines
    assert f"s{opening} -. fails 6 times .-> stay" in lines
    assert f"s{route} -. fails 2 times .-> s{reverse}" in lines
    assert f"s{reverse} --> c{canary}" in lines
    assert f"c{canary} -- no --> done" in lines
    assert not any(line.startswith(f"a{canary} -. abort") for line in lines)
    assert "ask -. abort .-> back" in lines


def test_nothing_is_drawn_that_no_way_leads_to(tmp_path: Path) -> None:
    changed = [{"name": step.name, "on_failure": "undo"} for step in load_runbook(ROOT / "runbooks" / "switchover.yaml")[0].steps[:8]]
    drawn = diagram.steps(with_steps(changed, tmp_path))
    assert "ask" not in re.findall(r"> (\w+)", drawn)
    assert "ask{{" not in drawn
    assert "back(" in drawn


def test_the_machine_is_drawn_as_in_the_document() -> None:
    drawn = next(block.text for block in blocks((ROOT / "docs" / "moves.md").read_text()) if block.text.startswith("stateDiagram"))
    assert diagram.machine() == drawn.strip()
