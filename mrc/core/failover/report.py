"""The report of one execution: what it did when, what it cost, and whether that was within the objectives.

Made from the journal, what was measured beside it and the divergence ledger; nothing is asked of anybody. What those do not hold is
`Unknown` with the reason. The JSON of a `Report` is a document with a version: fields are added, never changed in their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import (
    ENDED,
    AbortAsked,
    Approved,
    Entry,
    Failed,
    Resumed,
    Run,
    Skipped,
    Superseded,
    Undid,
    handle,
)
from mrc.core.failover.ledger import Account, Ledger, SupersededRecord, Tail
from mrc.core.failover.measured import Measured, Rereads, Sample
from mrc.core.failover.measured import Reading as Number
from mrc.core.failover.runbook import STAYING
from mrc.core.model import Known, Reading, Unknown, Written, decode, decoder, encode
from mrc.core.views import ExecutionView, FindingView

Verdict = Literal["met", "missed", "not-exceeded", "unknown", "not-set"]


class Objective(Written, frozen=True):
    """A figure beside what it may be.

    Attributes:
        name: ``rpo`` (seconds of records that were left behind) or ``rto`` (seconds from the beginning to the end).
        wanted_s: None: nobody has set any.
        seconds: what it was; with ``at_least`` a bound from below.
        verdict: ``not-exceeded``: what is known keeps to it, and not everything is known.
    """

    name: Literal["rpo", "rto"]
    wanted_s: float | None
    seconds: Reading[float]
    at_least: bool
    verdict: Verdict
    detail: str


class ReportStep(Written, frozen=True):
    """A step as it went; a time is None where it did not come to that. ``failures`` counts the tries that failed."""

    name: str
    action: str
    state: str
    began_at_ms: int | None
    ended_at_ms: int | None
    failures: int
    point_of_no_return: bool
    evidence: str


class Wait(Written, frozen=True):
    """A time in which the execution waited for a person; it has not ended where ``ended_at_ms`` is None."""

    step: str
    began_at_ms: int
    ended_at_ms: int | None
    code: str
    message: str


class Happening(Written, frozen=True):
    """An entry of the journal that is no ordinary progress: a failure, a take-over, what a person asked."""

    at_ms: int
    what: str
    step: str
    agent: str
    detail: str


class Rate(Written, frozen=True):
    """Offsets appended per second since the sample before, per region; the word says why there is no number."""

    at_ms: int
    source: Number
    target: Number


class Load(Written, frozen=True):
    """Lag and throughput over time. ``rates`` has one element per sample."""

    every_ms: int
    samples: tuple[Sample, ...]
    rates: tuple[Rate, ...]


class Sums(Written, frozen=True):
    """What became of one partition's divergent records, counted from the logs: all but ``exported`` make up the divergent ones.

    Attributes:
        unexplained: 0 where the sums match; nothing is moved home where they do not.
        overtaken: of the re-emitted, those whose key was written again after the stated offset.
        superseded_by: the first few, each with the record that stands in its place.
    """

    exported: int
    emitted: int
    superseded: int
    quarantined: int
    unexplained: int
    overtaken: int
    superseded_by: tuple[SupersededRecord, ...]


class DivergentPartition(Written, frozen=True):
    """What one partition left behind: the half-open range in the old region's log, the visible records in it, what became of them.

    Attributes:
        sums: None until they are accounted for, and where there are none.
    """

    topic: str
    partition: int
    begin: Reading[int]
    end: Reading[int]
    records: Reading[int]
    sums: Sums | None = None


class Divergence(Written, frozen=True):
    """What a failover left behind in ``region``; ``records`` is the sum, unknown while one of its partitions is.

    Attributes:
        failover: its execution; empty in documents of older versions.
    """

    region: str
    state: str
    records: Reading[int]
    partitions: tuple[DivergentPartition, ...]
    failover: str = ""


class Report(Written, frozen=True):
    """The document.

    Attributes:
        status: as of ``as_of_ms``, which is the execution's end where it has ended.
        write_block_s: from the beginning of the source's fence until the target was seen to take writes.
        waited_s: how long it waited for people.
        divergence: what a failover left behind.
        recovered: what a failback has found of earlier failovers and recovered; None: it is no failback.
    """

    execution: str
    replication_group: str
    kind: str
    source: str
    target: str
    epoch: int
    status: str
    waits_for: str
    actor: str
    reason: str
    attested: bool
    supersedes: str
    runbook: str
    runbook_hash: str
    started_at_ms: int
    ended_at_ms: int | None
    as_of_ms: int
    objectives: tuple[Objective, ...]
    write_block_s: Reading[float]
    waited_s: float
    steps: tuple[ReportStep, ...]
    left_out: tuple[str, ...]
    waits: tuple[Wait, ...]
    happenings: tuple[Happening, ...]
    load: Reading[Load]
    rereads: Reading[Rereads]
    divergence: Reading[Divergence]
    findings: Reading[tuple[FindingView, ...]]
    findings_left_out: int
    recovered: Reading[tuple[Divergence, ...]] | None = None
    document: Literal["mrc-report"] = "mrc-report"
    version: Literal[1] = 1


def make_report(
    view: ExecutionView, run: Run, entries: Sequence[Entry], measured: Measured | None, ledgers: Reading[tuple[Ledger, ...]], now_ms: int
) -> Report:
    """Return the report of an execution as it stands.

    Args:
        view: of ``run``.
        run: the state after ``entries``.
        ledgers: the divergence ledger, or why it is not known.
    """
    plan = run.plan
    ended = run.phase in ENDED
    ledger = _own(plan.id, ledgers, now_ms)
    as_of_ms = run.ended_at_ms if ended else max([now_ms, *(entry.at_ms for entry in entries)])
    waits = _waits(run, entries)
    waited_s = sum((wait.ended_at_ms or as_of_ms) - wait.began_at_ms for wait in waits) / 1000
    return Report(
        execution=plan.id,
        replication_group=plan.replication_group,
        kind=plan.kind,
        source=plan.source,
        target=plan.target,
        epoch=plan.epoch,
        status=view.status,
        waits_for=view.waits_for,
        actor=plan.actor,
        reason=plan.reason,
        attested=plan.attested,
        supersedes=plan.supersedes,
        runbook=plan.runbook,
        runbook_hash=plan.runbook_hash,
        started_at_ms=run.started_at_ms,
        ended_at_ms=run.ended_at_ms if ended else None,
        as_of_ms=as_of_ms,
        objectives=(_rpo(run, measured, ledger, as_of_ms), _rto(run, measured, waited_s, as_of_ms)),
        write_block_s=_write_block(run, as_of_ms),
        waited_s=waited_s,
        steps=_steps(view, run, entries),
        left_out=plan.left_out,
        waits=waits,
        happenings=_happenings(entries),
        load=_load(measured, as_of_ms),
        rereads=_rereads(run, as_of_ms),
        divergence=_divergence(run, ledger, as_of_ms),
        findings=_findings(measured, as_of_ms),
        findings_left_out=measured.findings_left_out if measured else 0,
        recovered=_recovered(run, ledgers, as_of_ms),
    )


def encode_report(report: Report) -> bytes:
    """Return the document as indented JSON with a line's end."""
    return msgspec.json.format(encode(report), indent=2) + b"\n"


def decode_report(document: str | bytes) -> Report:
    """Return the report in a document. Raises ``VERSION_MISMATCH``."""
    try:
        return decoder(Report).decode(document)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise MrcError("VERSION_MISMATCH", f"the report cannot be read: {error}") from None


# ---------------------------------------------------------------- objectives


def _rto(run: Run, measured: Measured | None, waited_s: float, as_of_ms: int) -> Objective:
    wanted_s = measured.rto_s if measured else None
    took_s = (as_of_ms - run.started_at_ms) / 1000
    waited = f", {waited_s:.1f} s of them waiting for people" if waited_s else ""
    if run.plan.kind in STAYING:
        return _unknown("rto", wanted_s, "moves-nothing", f"a {run.plan.kind} moves nothing", as_of_ms)
    if run.phase == "succeeded":
        return _known("rto", wanted_s, Known(took_s, as_of_ms), f"from its beginning to its end{waited}", at_least=False)
    if run.phase in ENDED:
        detail = f"it was {run.phase} after {took_s:.1f} s{waited}"
        return _unknown("rto", wanted_s, "did-not-move", detail, as_of_ms)
    return _known("rto", wanted_s, Known(took_s, as_of_ms), f"it has not ended{waited}", at_least=True)


def _rpo(run: Run, measured: Measured | None, ledger: Reading[Ledger], as_of_ms: int) -> Objective:
    """Return what was left behind in seconds: nothing where that was proved, else the last lag that was read."""
    plan, wanted_s = run.plan, measured.rpo_s if measured else None
    if plan.kind in STAYING:
        return _unknown("rpo", wanted_s, "moves-nothing", f"a {plan.kind} moves nothing", as_of_ms)
    if not run.opened:
        return _unknown("rpo", wanted_s, "not-opened", f"{plan.target} was not opened", as_of_ms)
    if plan.planned:
        detail = f"every record of {plan.source} was seen in {plan.target} before it was opened"
        return _known("rpo", wanted_s, Known(0.0, as_of_ms), detail, at_least=False)
    if isinstance(ledger, Known) and ledger.value.state == "listed" and all(tail.records == 0 for tail in ledger.value.tails):
        detail = f"{plan.source} has returned, and nothing was left behind there"
        return _known("rpo", wanted_s, Known(0.0, as_of_ms), detail, at_least=False)
    last = _last_lag(run, measured)
    if last is None:
        detail = f"the lag of the flow out of {plan.source} was not read before it ended"
        return _unknown("rpo", wanted_s, "not-measured", detail, as_of_ms)
    ago_s = (run.started_at_ms - last.at_ms) / 1000
    when = f"{ago_s:.1f} s before the move began" if ago_s > 0 else f"{-ago_s:.1f} s after the move began"
    detail = f"age of the oldest record that was not copied when that was read last, {when}; what was written later is not in it"
    return _known("rpo", wanted_s, last, detail, at_least=True)


def _known(name: Literal["rpo", "rto"], wanted_s: float | None, seconds: Known[float], detail: str, *, at_least: bool) -> Objective:
    verdict: Verdict = "not-exceeded" if at_least else "met"
    if wanted_s is None:
        verdict = "not-set"
    elif seconds.value > wanted_s:
        verdict = "missed"
    return Objective(name, wanted_s, seconds, at_least, verdict, detail)


def _unknown(name: Literal["rpo", "rto"], wanted_s: float | None, reason: str, detail: str, at_ms: int) -> Objective:
    verdict: Verdict = "not-set" if wanted_s is None else "unknown"
    return Objective(name, wanted_s, Unknown(reason, detail, at_ms), at_least=False, verdict=verdict, detail=detail)


def _last_lag(run: Run, measured: Measured | None) -> Known[float] | None:
    """Return the last lag in seconds that was read before the target was opened."""
    begins = [run.times[step.name][0] for step in run.plan.steps if ACTIONS[step.action].opens and step.name in run.times]
    for sample in reversed(measured.samples if measured else ()):
        if sample.at_ms <= min(begins, default=0) and not isinstance(sample.lag_s, str):
            return Known(sample.lag_s, sample.at_ms)
    return None


def _write_block(run: Run, as_of_ms: int) -> Reading[float]:
    """Return for how long neither region took writes; of a failover that is not known, for it begins with the source's death."""
    times = {step.action: run.times.get(step.name, (0, 0)) for step in run.plan.steps}
    fenced, opened = times.get("fence-source", (0, 0))[0], times.get("open-target", (0, 0))[1]
    if run.plan.kind == "failover":
        return Unknown("source-died", f"when {run.plan.source} took its last write is not known", as_of_ms)
    if not fenced or not opened:
        return Unknown("not-opened", f"{run.plan.target} was not opened", as_of_ms)
    return Known((opened - fenced) / 1000, as_of_ms)


# ---------------------------------------------------------------- steps


def _steps(view: ExecutionView, run: Run, entries: Sequence[Entry]) -> tuple[ReportStep, ...]:
    failures = [entry.event.step for entry in entries if isinstance(entry.event, Failed)]
    found = []
    for step in view.steps:
        began, ended = run.times.get(step.name, (0, 0))
        found.append(
            ReportStep(
                name=step.name,
                action=step.action,
                state=step.state,
                began_at_ms=began or None,
                ended_at_ms=ended or None,
                failures=failures.count(step.name),
                point_of_no_return=step.point_of_no_return,
                evidence=step.evidence,
            )
        )
    return tuple(found)


def _waits(run: Run, entries: Sequence[Entry]) -> tuple[Wait, ...]:
    """Return the times of waiting, by replaying the journal."""
    found: list[Wait] = []
    now = Run(run.plan)
    for entry in entries:
        before = now.waiting
        now, _ = handle(now, entry.event, entry.at_ms)
        if before == now.waiting:
            continue
        if before is not None:
            found[-1] = msgspec.structs.replace(found[-1], ended_at_ms=entry.at_ms)
        if now.waiting is not None:
            found.append(Wait(now.waiting.step, entry.at_ms, None, now.waiting.code, now.waiting.message))
    if now.number != run.number:
        raise InvariantViolation(f"{now.number} entries, and a state after {run.number}", where=run.plan.id)
    return tuple(found)


def _happenings(entries: Sequence[Entry]) -> tuple[Happening, ...]:
    return tuple(found for entry in entries if (found := _happening(entry)) is not None)


def _happening(entry: Entry) -> Happening | None:
    def told(what: str, detail: str, step: str = "") -> Happening:
        return Happening(entry.at_ms, what, step, entry.agent, detail)

    match entry.event:
        case Failed(step=step, code=code, message=message):
            return told("failed", f"{code}: {message}", step)
        case Resumed():
            return told("taken over", f"by {entry.agent} in term {entry.term}")
        case Approved(actor=actor, reason=reason):
            return told("approved", _by(actor, reason))
        case AbortAsked(actor=actor, reason=reason):
            return told("abort asked", _by(actor, reason))
        case Skipped(actor=actor, reason=reason):
            return told("skipped", _by(actor, reason))
        case Superseded(actor=actor, by=by):
            return told("superseded", f"by execution {by}, which {actor} began")
        case Undid(step=step, evidence=evidence):
            return told("undone", evidence, step)
    return None


def _by(actor: str, reason: str) -> str:
    return f"by {actor}: {reason}" if reason else f"by {actor}"


# ---------------------------------------------------------------- what was measured


def _load(measured: Measured | None, as_of_ms: int) -> Reading[Load]:
    if measured is None or not measured.samples:
        return Unknown(
            "not-recorded", "no samples were taken: no agent that carries it out has lived long enough, or its version takes none", as_of_ms
        )
    samples = measured.samples
    rates = (Rate(samples[0].at_ms, "no-sample-before", "no-sample-before"), *(_rate(before, after) for before, after in pairwise(samples)))
    return Known(Load(measured.every_ms, samples, rates), samples[-1].at_ms)


def _rate(before: Sample, after: Sample) -> Rate:
    if after.gap:
        return Rate(after.at_ms, "gap", "gap")
    seconds = (after.at_ms - before.at_ms) / 1000
    return Rate(after.at_ms, _per_s(before.source_end, after.source_end, seconds), _per_s(before.target_end, after.target_end, seconds))


def _per_s(before: Number, after: Number, seconds: float) -> Number:
    if isinstance(after, str):
        return after
    if isinstance(before, str):
        return before
    return (after - before) / seconds if after >= before else "log-shorter-than-before"


def _rereads(run: Run, as_of_ms: int) -> Reading[Rereads]:
    told = run.facts.get("rereads")
    if told is None:
        return Unknown("not-recorded", "no positions were moved", as_of_ms)
    try:
        return Known(decode(told.encode(), Rereads), as_of_ms)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Unknown("unreadable", "what the journal says of it cannot be read", as_of_ms)


def _divergence(run: Run, ledger: Reading[Ledger], as_of_ms: int) -> Reading[Divergence]:
    if run.plan.kind != "failover":
        return Unknown("no-failover", f"a {run.plan.kind} leaves nothing behind", as_of_ms)
    if isinstance(ledger, Unknown):
        return ledger
    return Known(_left_behind(ledger.value, ledger.at_ms), ledger.at_ms)


def _left_behind(ledger: Ledger, at_ms: int) -> Divergence:
    partitions = tuple(_divergent(tail, ledger, at_ms) for tail in ledger.tails)
    records: Reading[int] = _open(ledger, at_ms)
    if all(isinstance(one.records, Known) for one in partitions):
        records = Known(sum(one.records.value for one in partitions if isinstance(one.records, Known)), at_ms)
    return Divergence(ledger.region, ledger.state, records, partitions, ledger.execution)


def _own(execution: str, ledgers: Reading[tuple[Ledger, ...]], now_ms: int) -> Reading[Ledger]:
    """Return the entry of an execution."""
    if isinstance(ledgers, Unknown):
        return ledgers
    none = Unknown("not-recorded", "the divergence ledger has no entry of it", now_ms)
    return next((Known(one, ledgers.at_ms) for one in ledgers.value if one.execution == execution), none)


def _recovered(run: Run, ledgers: Reading[tuple[Ledger, ...]], as_of_ms: int) -> Reading[tuple[Divergence, ...]] | None:
    """Return the entries that a failback has found unaccounted for when it listed them."""
    if run.plan.kind != "failback":
        return None
    ids = [id for id in run.facts.get("recovers", "").split(",") if id]
    if not ids:
        return Known((), as_of_ms)
    if isinstance(ledgers, Unknown):
        return ledgers
    return Known(tuple(_left_behind(one, ledgers.at_ms) for one in ledgers.value if one.id in ids), ledgers.at_ms)


def _open(ledger: Ledger, at_ms: int) -> Unknown:
    return Unknown(
        "region-not-back", f"{ledger.region} has not returned, or not with its log: what it took behind the last copy is not known", at_ms
    )


def _divergent(tail: Tail, ledger: Ledger, at_ms: int) -> DivergentPartition:
    def known(value: int) -> Reading[int]:
        return Known(value, at_ms) if value >= 0 else _open(ledger, at_ms)

    begin = tail.begin if tail.begin >= 0 else tail.last_source + 1 if tail.last_source >= 0 else -1
    account = next((one for one in ledger.accounts if (one.topic, one.partition) == (tail.topic, tail.partition)), None)
    return DivergentPartition(
        tail.topic, tail.partition, known(begin), known(tail.end), known(tail.records), _sums(account) if account else None
    )


def _sums(one: Account) -> Sums:
    return Sums(one.exported, one.emitted, one.superseded, one.quarantined, one.unexplained, one.overtaken, one.superseded_by)


def _findings(measured: Measured | None, as_of_ms: int) -> Reading[tuple[FindingView, ...]]:
    if measured is None or measured.findings is None:
        return Unknown("not-recorded", "what was found when it was begun was not recorded", as_of_ms)
    return Known(measured.findings, as_of_ms)
