"""What is shown of an execution: its state, its steps, its journal, its report."""

from __future__ import annotations

from typing import Literal

import msgspec

from mrc.core.errors import MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.archive import Archived
from mrc.core.failover.execution import Entry, Run
from mrc.core.failover.ledger import Ledger
from mrc.core.failover.report import encode_report, make_report
from mrc.core.model import Reading, encode
from mrc.core.views import EntryView, ExecutionView, StepView


def execution_view(run: Run, now_ms: int) -> ExecutionView:
    """Return what is shown of an execution."""
    status: Literal["running", "waiting", "undoing", "succeeded", "aborted", "superseded"]
    match run.phase:
        case "waiting" | "undoing" | "succeeded" | "aborted" | "superseded":
            status = run.phase
        case _:
            status = "running"
    waits = ""
    if run.waiting is not None:
        waits = run.waiting.message if not run.waiting.code else f"{run.waiting.code}: {run.waiting.message}"
    return ExecutionView(
        id=run.plan.id,
        replication_group=run.plan.replication_group,
        kind=run.plan.kind,
        source=run.plan.source,
        target=run.plan.target,
        status=status,
        waits_for=waits,
        steps=tuple(_step_view(run, index, now_ms) for index in range(len(run.plan.steps))),
        started_at_ms=run.started_at_ms,
        ended_at_ms=run.ended_at_ms,
        actor=run.plan.actor,
        reason=run.plan.reason,
        runbook_hash=run.plan.runbook_hash,
        abortable=run.abortable,
    )


def _step_view(run: Run, index: int, now_ms: int) -> StepView:
    step = run.plan.steps[index]
    began, ended = run.times.get(step.name, (0, 0))
    state = "planned"
    if ended:
        state = "skipped" if run.evidence.get(step.name, "").startswith("skipped: ") else "done"
    elif began and run.phase == "superseded":
        state = "left"
    elif began and run.phase == "aborted":
        state = "undone"
    elif began and index == run.at:
        state = {"doing": "running", "verifying": "verifying", "waiting": "waiting", "undoing": "undoing"}.get(run.phase, "running")
    elif run.waiting is not None and run.waiting.step == step.name:
        state = "waiting"
    return StepView(
        name=step.name,
        action=step.action,
        state=state,
        evidence=run.evidence.get(step.name, ""),
        elapsed_ms=(ended or run.ended_at_ms or now_ms) - began if began else 0,
        approval=step.approval,
        point_of_no_return=ACTIONS[step.action].opens,
    )


def unreadable_view(replication_group: str, execution: str, why: str) -> ExecutionView:
    """Return what is shown of an execution whose plan or journal cannot be read."""
    return ExecutionView(
        id=execution,
        replication_group=replication_group,
        kind="",
        source="",
        target="",
        status="unreadable",
        waits_for=why,
        steps=(),
        started_at_ms=0,
        ended_at_ms=0,
        actor="",
        reason="",
        runbook_hash="",
        abortable=False,
    )


def entry_view(name: str, entry: Entry | MrcError) -> EntryView:
    """Return what is shown of a journal entry, or of one that cannot be read."""
    if isinstance(entry, MrcError):
        return EntryView(int(name) if name.isdecimal() else 0, 0, "", 0, "unreadable", "", str(entry))
    fields = msgspec.to_builtins(entry.event)
    what, step = str(fields.pop("type")), str(fields.pop("step", ""))
    return EntryView(entry.number, entry.at_ms, entry.agent, entry.term, what, step, encode(fields).decode() if fields else "")


def report_of(one: Archived, ledgers: Reading[tuple[Ledger, ...]], now_ms: int) -> str:
    """Return the report of an execution as a JSON document. Raises `MrcError` as `Archived.run`."""
    run = one.run()
    return encode_report(make_report(execution_view(run, now_ms), run, one.entries, one.measured, ledgers, now_ms)).decode()
