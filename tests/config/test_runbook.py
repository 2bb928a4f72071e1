"""Runbook files: shape, located errors, a hash of the very bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mrc.config import load, load_runbook, runbook_folder
from mrc.core.errors import MrcError
from mrc.core.failover.runbook import Approval
from tests.config.example import line_of, write_example

EXAMPLE = """\
runbook: switchover
kind: switchover
description: Move.
steps:
  - name: fence-source
    action: fence-source
    timeout_s: 30
  - {name: call, action: command, parameters: {argv: [say, hello], times: 2, loud: true}, retries: 0, approval: true}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "switchover.yaml"
    path.write_text(text)
    return path


def test_a_good_runbook_loads_with_its_defaults_and_the_hash_of_its_bytes(tmp_path: Path) -> None:
    runbook, digest = load_runbook(write(tmp_path, EXAMPLE))
    fence, call = runbook.steps
    assert (fence.retries, fence.approval, fence.parameters) == (2, False, {})
    assert call.parameters == {"argv": ("say", "hello"), "times": 2, "loud": True}
    assert digest == hashlib.sha256(EXAMPLE.encode()).hexdigest()


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("kind: switchover", "kind: swap", "kind", "failover"),
        ("timeout_s: 30", "timeout: 30", "steps[0].timeout", "did you mean timeout_s?"),
        ("timeout_s: 30", "timeout_s: 0", "steps[0].timeout_s", "more than 0"),
        ("retries: 0", "retries: 11", "steps[1].retries", "at most 10"),
        ("approval: true", "approval: maybe", "steps[1].approval", "true or false"),
        ("{name: call", "{name: fence-source", "steps[1].name", "twice"),
        ("times: 2", "times: 2.5", "steps[1].parameters.times", "text"),
        ("    action: fence-source\n", "", "steps[0].action", "missing"),
        ("approval: true", "approval: {by: anyone}", "steps[1].approval.by", "allowed: anybody, another"),
        ("approval: true", "approval: {from: another}", "steps[1].approval.from", "unknown key; allowed: by, timeout_s"),
        ("approval: true", "approval: {timeout_s: 0}", "steps[1].approval.timeout_s", "more than 0"),
        ("approval: true", "approval: [another]", "steps[1].approval", "true or false or a mapping"),
        ("approval: true", "on_failure: retry", "steps[1].on_failure", "allowed: ask, undo, go-on"),
        ("approval: true", "only_if: source-reachabel", "steps[1].only_if", "did you mean source-reachable?"),
        ("approval: true", "why: [because]", "steps[1].why", "expected text"),
        ("description: Move.", "left_out: [a]", "left_out", "unknown key"),
    ],
)
def test_an_error_names_file_line_and_key(old: str, new: str, key: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLE.replace(old, new, 1))
    with pytest.raises(MrcError, match=said.replace("?", r"\?")) as caught:
        load_runbook(path)
    line = line_of(new, path) if new else line_of("- name: fence-source", path)
    assert caught.value.code == "RUNBOOK_INVALID"
    assert caught.value.where == f"{path}:{line} {key}"


def test_what_is_said_about_a_step_is_read_as_it_is_written(tmp_path: Path) -> None:
    said = """\
    approval: {by: another, timeout_s: 600}
    on_failure: undo
    only_if: source-unreachable
    why: Because.
    by_hand: |
      Do it:

          kafka-topics.sh --list
    check: Look.
    risks: None.
"""
    fence = load_runbook(write(tmp_path, EXAMPLE.replace("    timeout_s: 30\n", said)))[0].steps[0]
    assert (fence.approval, fence.approval_rule) == (True, Approval(by="another", timeout_s=600))
    assert (fence.on_failure, fence.only_if) == ("undo", "source-unreachable")
    assert (fence.why, fence.check, fence.risks) == ("Because.", "Look.", "None.")
    assert fence.by_hand == "Do it:\n\n    kafka-topics.sh --list\n"


def test_a_missing_runbook_is_an_error_of_the_runbook(tmp_path: Path) -> None:
    with pytest.raises(MrcError) as caught:
        load_runbook(tmp_path / "none.yaml")
    assert caught.value.code == "RUNBOOK_INVALID"


def test_the_runbooks_that_mrc_ships_are_found_and_good(tmp_path: Path) -> None:
    folder = runbook_folder(load(write_example(tmp_path)).replication_group())
    names = {load_runbook(path)[0].runbook for path in folder.glob("*.yaml")}
    assert names >= {"switchover", "failover", "fence"}


def test_a_configured_folder_of_runbooks_takes_their_place(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    group = load(write_example(tmp_path, {"probe: {": "runbooks: books\n    probe: {"})).replication_group()
    assert runbook_folder(group) == tmp_path / "books"
