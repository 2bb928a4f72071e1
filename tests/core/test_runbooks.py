"""Runbooks are judged by the table of actions, left out by what was seen, and old journals are read as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import Entry, replay
from mrc.core.failover.plan import Plan, as_seen, is_web_address, lint, make_plan, unexplained
from mrc.core.failover.runbook import Approval, MoveKind, Runbook, RunbookStep
from mrc.core.model import Epoch, Region, decode

JOURNAL = Path(__file__).parent / "first_journal.jsonl"


def runbook(kind: MoveKind = "switchover", changed: dict[str, dict[str, Any]] | None = None, *more: RunbookStep) -> Runbook:
    """Every action that a kind of move has, in the order of the table, then ``more``; ``changed`` are other fields by action."""
    names = [name for name, action in ACTIONS.items() if kind in action.needs and not action.custom]
    steps = [RunbookStep(name=name, action=name, **(changed or {}).get(name, {})) for name in names]
    return Runbook(runbook="moving", kind=kind, steps=(*steps, *more))


def plan(book: Runbook) -> Plan:
    return make_plan(
        book,
        "",
        execution="1",
        replication_group="orders",
        source=Region("east"),
        target=Region("west"),
        epoch=Epoch(1),
        now_ms=0,
        token="",
        attested=True,
        actor="somebody",
        reason="",
    )


def wrong(book: Runbook) -> str:
    """The one thing that is wrong with it."""
    (found,) = lint(book)
    assert (found.code, found.severity) == ("RUNBOOK_INVALID", "error")
    return f"{found.where}: {found.message}"


REOPENED: dict[str, dict[str, Any]] = {"reopen-source": {"approval_rule": True}}


@pytest.mark.parametrize("kind", ["switchover", "failover", "fence", "failback", "rebuild"])
def test_every_action_in_the_order_of_the_table_is_a_good_runbook(kind: MoveKind) -> None:
    assert lint(runbook(kind, REOPENED)) == ()


def test_a_fence_has_no_step_that_could_open_or_change_the_other_region() -> None:
    book = runbook("fence", REOPENED)
    assert [step.action for step in book.steps] == ["preflight", "fence-source", "reopen-source"]
    for action in ACTIONS.keys() - {step.action for step in book.steps}:
        if not ACTIONS[action].custom:
            added = msgspec.structs.replace(book, steps=(*book.steps, RunbookStep(name="own", action=action)))
            assert wrong(added) == f"step own: {action} has no place in a fence"
    for kind in ("switchover", "failover"):
        assert "reopen-source has no place" in wrong(runbook(kind, None, RunbookStep(name="own", action="reopen-source")))


def test_a_fence_ends_by_nobody_but_a_person() -> None:
    assert wrong(runbook("fence")) == "step reopen-source: approval: reopen-source waits for a person; allowed here: true, or a mapping"
    passed = {"reopen-source": {"approval_rule": True, "on_failure": "go-on"}}
    assert wrong(runbook("fence", passed)) == "step reopen-source: on_failure: go-on: a fence cannot do without reopen-source"
    book = runbook("fence", REOPENED)
    early = msgspec.structs.replace(book, steps=(book.steps[0], book.steps[2], book.steps[1]))
    assert wrong(early).startswith("step reopen-source: unsafe order: reopen-source needs source-settled first")


@pytest.mark.parametrize("action", sorted(name for name, action in ACTIONS.items() if action.undo and "switchover" in action.needs))
def test_a_step_before_the_point_of_no_return_may_undo_the_move_and_one_that_others_need_may_not_be_passed_over(action: str) -> None:
    assert lint(runbook(changed={action: {"on_failure": "undo"}})) == ()
    assert f"needs what {action} gives" in wrong(runbook(changed={action: {"on_failure": "go-on"}}))


@pytest.mark.parametrize("action", ["open-target", "route", "reverse-flow", "canary"])
def test_there_is_no_way_back_once_the_target_is_being_opened(action: str) -> None:
    assert wrong(runbook(changed={action: {"on_failure": "undo"}})).startswith(f"step {action}: on_failure: undo: there is no way back")


def test_only_what_nothing_later_needs_may_be_passed_over() -> None:
    for action in ("route", "reverse-flow", "canary"):
        assert lint(runbook(changed={action: {"on_failure": "go-on"}})) == ()
    last = Runbook(runbook="moving", kind="failover", steps=runbook("failover", {"open-target": {"on_failure": "go-on"}}).steps[:7])
    assert last.steps[-1].action == "open-target"
    assert wrong(last) == "step open-target: on_failure: go-on: a failover cannot do without open-target"


def test_a_condition_has_no_place_on_a_step_that_the_move_requires() -> None:
    assert wrong(runbook(changed={"drain": {"only_if": "source-reachable"}})) == "step drain: only_if: a switchover cannot do without drain"


def test_an_approval_that_lapses_has_no_place_where_nothing_can_be_undone() -> None:
    lapsing = {"approval_rule": Approval(timeout_s=60)}
    assert lint(runbook(changed={"open-target": lapsing})) == ()
    assert "approval.timeout_s" in wrong(runbook(changed={"route": lapsing}))


@pytest.mark.parametrize(
    ("action", "parameters", "said"),
    [
        ("command", {}, "parameter argv of command is missing"),
        ("command", {"argv": "ls -l"}, "parameter argv of command must be a list of words"),
        ("command", {"argv": ()}, "parameter argv of command must be a list of words"),
        ("http", {"method": "POST"}, "parameter url of http is missing"),
        ("http", {"method": "HEAD", "url": "http://a"}, "method of http must be one of GET, POST, PUT, PATCH, DELETE; it is 'HEAD'"),
        ("http", {"method": "POST", "url": "file:///etc/passwd"}, "url of http must be an address that begins with http:// or https://"),
        ("wait-for", {"argv": ("true",), "until": "later"}, "unknown parameter until of wait-for; allowed: argv"),
        ("pause", {"seconds": True}, "parameter seconds of pause must be a whole number"),
        ("pause", {"seconds": 30}, "seconds of pause must be more than 0 and less than the step's timeout_s, 30; it is 30"),
        ("pause", {"seconds": 0}, "seconds of pause must be more than 0"),
        ("notify", {}, "notify needs one of argv and url, and not both"),
        ("notify", {"argv": ("tell",), "url": "http://a"}, "notify needs one of argv and url, and not both"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(action: str, parameters: dict[str, Any], said: str) -> None:
    assert said in wrong(runbook("failover", None, RunbookStep(name="own", action=action, parameters=parameters)))


@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        ("command", {"argv": ("tell", "them")}),
        ("http", {"method": "PUT", "url": "https://lb.example:8443/weights?region=west"}),
        ("wait-for", {"argv": ("./quiet",)}),
        ("pause", {"seconds": 29}),
        ("notify", {"url": "http://chat.example/hook"}),
        ("notify", {"argv": ("page",)}),
    ],
)
def test_steps_of_the_operators_own_may_stand_anywhere_and_more_than_once(action: str, parameters: dict[str, Any]) -> None:
    book = runbook()
    own = [RunbookStep(name=f"own-{n}", action=action, parameters=parameters, on_failure="go-on") for n in range(2)]
    for at in range(len(book.steps) + 1):
        assert lint(msgspec.structs.replace(book, steps=(*book.steps[:at], *own, *book.steps[at:]))) == ()


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("http://a", True),
        ("https://a.example:443/b?c=d", True),
        ("http://[::1]:80/", True),
        ("ftp://a", False),
        ("http://", False),
        ("http:///path", False),
        ("http://a:port", False),
        ("http://user:word@a", False),
        ("http://a/b c", False),
        ("http://a/\r\nHost: b", False),
        ("a", False),
        ("", False),
    ],
)
def test_requests_go_to_plain_web_addresses_only(address: str, good: bool) -> None:
    assert is_web_address(address) is good


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(("only_if", "reachable"), [("source-reachable", True), ("source-unreachable", False)])
def test_a_step_whose_condition_does_not_hold_is_left_out_and_the_plan_says_so(only_if: Any, reachable: bool) -> None:
    book = runbook("failover", {"route": {"only_if": only_if}})
    there = plan(as_seen(book, source_reachable=reachable))
    assert "route" in [step.name for step in there.steps]
    assert there.left_out == ()
    seen = as_seen(book, source_reachable=not reachable)
    without = plan(seen)
    assert [step.name for step in without.steps] == [step.name for step in there.steps if step.name != "route"]
    assert without.left_out == seen.left_out
    (finding,) = lint(seen)
    assert (finding.code, finding.severity, finding.message) == ("STEP_LEFT_OUT", "info", seen.left_out[0])
    assert finding.message.startswith(f"step route is left out: it is there only if {only_if}")


def test_a_condition_that_nobody_has_judged_and_one_on_a_required_step_make_no_plan() -> None:
    with pytest.raises(InvariantViolation, match="nobody has judged the condition of step canary"):
        plan(runbook(changed={"canary": {"only_if": "source-reachable"}}))
    with pytest.raises(MrcError, match="cannot do without drain") as refused:
        plan(as_seen(runbook(changed={"drain": {"only_if": "source-unreachable"}}), source_reachable=True))
    assert refused.value.code == "RUNBOOK_INVALID"


# ---------------------------------------------------------------- what people must know


def test_a_step_that_says_nothing_to_people_is_named_with_what_it_lacks() -> None:
    told: dict[str, Any] = {"why": "a", "by_hand": "b", "check": "c", "risks": "d"}
    good = RunbookStep(name="own", action="pause", parameters={"seconds": 1}, **told)
    assert unexplained(Runbook(runbook="moving", kind="failover", steps=(good,))) == ()
    bad = msgspec.structs.replace(good, why=" \n", risks="")
    (found,) = unexplained(Runbook(runbook="moving", kind="failover", steps=(good, bad)))
    assert (found.severity, found.where, found.message) == ("error", "step own", "says nothing about why, risks")


def test_what_a_runbook_says_to_people_keeps_nobody_from_moving() -> None:
    assert plan(runbook()).steps


# ---------------------------------------------------------------- journals


def test_a_journal_of_the_first_version_is_read_as_it_was_written() -> None:
    head, *lines = JOURNAL.read_bytes().splitlines()
    old = decode(head, Plan)
    assert [step.name for step in old.steps if step.approval] == ["open-target"]
    assert {step.on_failure for step in old.steps} == {"ask"}
    assert old.steps[0].parameters == {"argv": ("say", "hello")}
    run = replay(old, tuple(decode(line, Entry) for line in lines))
    assert run.phase == "succeeded"
    assert run.facts["call"] == ""


def test_a_plan_is_read_back_as_it_was_made() -> None:
    changed: dict[str, dict[str, Any]] = {
        "open-target": {"approval_rule": Approval(by="another", timeout_s=60)},
        "canary": {"on_failure": "go-on"},
        "drain": {"approval_rule": True},
    }
    made = plan(as_seen(runbook(changed={**changed, "route": {"only_if": "source-unreachable"}}), source_reachable=True))
    written = msgspec.json.encode(made)
    assert b'"approval":{"by":"another","timeout_s":60' in written
    assert decode(written, Plan) == made
