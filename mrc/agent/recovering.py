"""Requests about divergent records: recover them, say what has become of them, say what a plan has to say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from mrc.agent import old_log
from mrc.agent.coordinator import Coordinator
from mrc.agent.recovery import AVAILABLE, Recovery, pending, recovered_tps, status
from mrc.core.errors import MrcError
from mrc.core.failover import old_log as judged
from mrc.core.failover.divergence import Notes, superseded_by
from mrc.core.failover.ledger import Ledger, SupersededRecord, Tail
from mrc.core.failover.runbook import MoveKind
from mrc.core.model import Offset, TopicPartition
from mrc.core.views import CheckpointView, FindingView, RecoveryPartitionView, RecoveryProgressView, RecoveryView, SupersededView


def recover(coordinator: Coordinator, execution: str, doing: str) -> Iterator[RecoveryProgressView]:
    """Export, or resolve and account for, what a failover left behind, batch by batch.

    Raises:
        MrcError: ``BAD_REQUEST``, ``UNKNOWN_EXECUTION``; ``NOTHING_DIVERGES`` under the default policy; ``MOVE_IN_PROGRESS`` while an
            execution runs; as `Recovery`.
    """
    estate = coordinator.estate
    if doing not in ("export", "resolve"):
        raise MrcError("BAD_REQUEST", f"it is {doing!r}; allowed: export, resolve", where="doing")
    ledger, version = _entry(coordinator, execution)
    if ledger.state in ("late", "copied"):
        message = f"what {ledger.region} alone had is copied by the flow out of it, late: there is nothing to recover"
        raise MrcError("NOTHING_DIVERGES", message, where=ledger.execution)
    if ledger.state == "lost":
        message = f"{ledger.region} was rebuilt before its records were accounted for: its log is gone"
        raise MrcError("DIVERGENCE_LOST", message, where=ledger.execution)
    if ledger.region != estate.region:
        message = f"what {ledger.region} has is recovered by the agent that leads there"
        raise MrcError("NOT_LEADER", message, retryable=True)
    if running := estate.store.current()[0]:
        raise MrcError("MOVE_IN_PROGRESS", f"execution {running} is running; a failback recovers by itself", where=running)
    recovery = Recovery(estate, estate.leadership.check, ledger)
    if not ledger.settled:
        for progress in recovery.export() if doing == "export" else recovery.resolve():
            yield RecoveryProgressView(ledger.execution, progress.doing, progress.done, progress.of)
        if doing == "resolve":
            accounts = recovery.account()
            estate.store.put_ledger(estate.leadership.check, msgspec.structs.replace(ledger, accounts=accounts), version)
    yield RecoveryProgressView(ledger.execution, doing, ledger.divergent, ledger.divergent)


def _entry(coordinator: Coordinator, execution: str) -> tuple[Ledger, int]:
    for ledger, version in coordinator.estate.store.ledgers():
        if ledger.execution == execution:
            return ledger, version
    raise MrcError("UNKNOWN_EXECUTION", f"no failover {execution!r} is in the divergence ledger")


def recoveries(coordinator: Coordinator) -> tuple[RecoveryView, ...]:
    """Return what has become of divergent records so far. Raises world errors."""
    estate = coordinator.estate
    found = []
    for ledger, _ in estate.store.ledgers():
        notes = None if ledger.state == "open" or (ledger.settled and ledger.state != "lost") else status(estate, ledger)
        partitions = _accounted(coordinator, ledger) if notes is None else _so_far(coordinator, ledger, notes)
        found.append(RecoveryView(ledger.execution, ledger.region, ledger.state, ledger.settled and ledger.state != "lost", partitions))
    return tuple(found)


def _accounted(coordinator: Coordinator, ledger: Ledger) -> tuple[RecoveryPartitionView, ...]:
    policy = coordinator.estate.unit.recovery.policy
    return tuple(
        RecoveryPartitionView(
            a.topic,
            a.partition,
            policy(a.topic),
            a.divergent,
            a.exported,
            a.emitted,
            a.superseded,
            a.quarantined,
            a.overtaken,
            _shown(a.superseded_by),
        )
        for a in ledger.accounts
    )


def _so_far(coordinator: Coordinator, ledger: Ledger, notes: Notes) -> tuple[RecoveryPartitionView, ...]:
    return tuple(_partition(coordinator, tp, tail, notes) for tp, tail in recovered_tps(ledger).items())


def _partition(coordinator: Coordinator, tp: TopicPartition, tail: Tail, notes: Notes) -> RecoveryPartitionView:
    settling, exported = notes.settling.get(tp.topic), notes.exported.get(tp)
    policy = settling.policy if settling else coordinator.estate.unit.recovery.policy(tp.topic)
    fates = [one.fate for (of, _), one in notes.fates.items() if of == tp]
    return RecoveryPartitionView(
        topic=tp.topic,
        partition=tp.partition,
        policy=policy,
        divergent=tail.records,
        exported=exported.records if exported else 0,
        emitted=fates.count("emitted"),
        superseded=fates.count("superseded"),
        quarantined=fates.count("quarantined"),
        overtaken=0,
        superseded_by=_shown(superseded_by(tp, notes.fates)),
    )


def _shown(told: tuple[SupersededRecord, ...]) -> tuple[SupersededView, ...]:
    return tuple(SupersededView(one.offset, one.by_partition, one.by_offset) for one in told)


# ---------------------------------------------------------------- what a plan says


def findings(coordinator: Coordinator, kind: MoveKind) -> tuple[FindingView, ...]:
    """Return what a planned move to this agent's region finds of what earlier failovers left behind in it."""
    estate = coordinator.estate
    waiting = [ledger for ledger, _ in pending(estate, estate.region)]
    found: list[FindingView] = []
    for ledger in waiting:
        said = f"{ledger.divergent} records that {ledger.region} alone has" if ledger.state != "open" else f"what {ledger.region} alone has"
        if kind == "failback":
            policies = ", ".join(f"{topic}: {estate.unit.recovery.policy(topic)}" for topic in estate.unit.topics)
            found.append(FindingView("DIVERGENCE_WAITS", "info", f"{said} are exported and resolved first ({policies})", ledger.execution))
        else:
            message = f"{said} are not accounted for: a failback recovers them on its way, a switchover leaves them in the old log"
            found.append(FindingView("DIVERGENCE_WAITS", "warning", message, ledger.execution))
    if kind == "failback":
        found += [
            FindingView("POLICY_NOT_AVAILABLE", "error", f"{topic}: {policy} is not carried out by this version", topic)
            for topic in estate.unit.topics
            if (policy := estate.unit.recovery.policy(topic)) not in AVAILABLE
        ]
    try:
        held = old_log.tails_held(estate, estate.region)
        seen = old_log.cleanups(estate, {one.tp.topic for one in held}) if kind == "failback" else {}
        purged = [one for one in held if estate.unit.recovery.old_log_of(one.tp.topic) == "purge"] if kind == "failback" else []
        behind = old_log.behind(estate, estate.region, purged) if purged else {}
    except MrcError as error:
        if error.kind == "bug":
            raise
        return tuple(found)  # a region that does not answer is named by the plan's other findings, and the failback looks again
    if kind == "failback" and held:
        found += judged.findings(estate.unit.recovery, estate.region, waiting[-1].execution if waiting else "", held, seen, behind)
    return (*found, *_tails_read(coordinator, kind, {one.tp: one.start for one in held}))


def _tails_read(coordinator: Coordinator, kind: MoveKind, starts: Mapping[TopicPartition, Offset]) -> Iterator[FindingView]:
    """Name the groups that would read a tail that stays in the old log, and how much of it; and whoever begins at the log's start.

    Args:
        starts: where logs begin now that hold tails.
    """
    estate = coordinator.estate
    checkpoints = coordinator.capture.snapshot().checkpoints
    for ledger, _ in estate.store.ledgers():
        if ledger.region != estate.region or ledger.state != "listed":
            continue
        tails = {
            tp: tail
            for tp, tail in recovered_tps(ledger).items()
            if tail.end > starts.get(tp, tail.end)
            and (kind != "failback" or estate.unit.recovery.old_log_of(tp.topic) not in ("recreate", "purge"))
        }
        if not tails:
            continue
        behind: dict[str, int] = {}
        for one in checkpoints:
            tail = tails.get(TopicPartition(one.topic, one.partition))
            if tail is not None and _begins_before(one, tail):
                behind[one.group] = behind.get(one.group, 0) + tail.records
        if behind:
            names = ", ".join(f"{group} ({records} records)" for group, records in sorted(behind.items()))
            message = f"behind the divergence point, so they read the tail of the old log too: {names}"
            yield FindingView("TAIL_READ", "warning", message, ledger.execution)
        records = sum(tail.records for tail in tails.values())
        message = f"whoever begins at a log's start in {ledger.region} reads {records} records there that were dealt with apart"
        yield FindingView("TAIL_IN_LOG", "info", message, ledger.execution)


def _begins_before(checkpoint: CheckpointView, tail: Tail) -> bool:
    said = checkpoint.translation
    begins = said.offset if said.type in ("exact", "bounded") else checkpoint.floor
    return begins < tail.end
