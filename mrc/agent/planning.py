"""What a move would do now, and what stands against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mrc.agent import fencing, rebuilding, recovering
from mrc.agent.coordinator import Coordinator
from mrc.agent.noticing import FORBID_PLANNED
from mrc.agent.objectives import over_rpo, over_rto
from mrc.core.errors import CODES, MrcError
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.findings import findings
from mrc.core.failover.plan import lint
from mrc.core.failover.runbook import PLANNED, STAYING, MoveKind, Runbook
from mrc.core.inventory import Inventory
from mrc.core.model import Known, Region, Unknown
from mrc.core.views import CheckpointView, FindingView, PartitionLossView, PlanView, StepView

LoadRunbook = Callable[[str, str], tuple[Runbook, str]]
"""(replication group, kind) -> runbook and the SHA-256 of its file."""

_CAUSES = ("AUTHENTICATION_FAILED", "CLUSTER_UNREACHABLE")
"""Findings that others follow from: of a cluster that does not answer nothing else can be read."""


def plan_view(
    coordinator: Coordinator,
    load_runbook: LoadRunbook,
    kind: MoveKind,
    *,
    attested: bool,
    superseding: bool,
    absence_s: float | None,
    restarted: bool,
) -> PlanView:
    """Return what a move to this agent's region would do now, with every finding; touches nothing. Raises world errors.

    Args:
        superseding: whether somebody says that records may be lost: a failover takes the place of a running move, a rebuild deletes.
        absence_s: see `absence_s`.
    """
    estate = coordinator.estate
    target = estate.region
    source = estate.unit.other(target)
    inventory = coordinator.observer.observe()
    runbook, digest = load_runbook(estate.unit.name, kind)
    steps = tuple(
        StepView(s.name, s.action, "planned", ACTIONS[s.action].does, 0, s.approval, ACTIONS[s.action].opens)
        for s in runbook.steps
        if s.action in ACTIONS
    )
    captured = coordinator.capture.snapshot()
    against = findings(inventory, kind, target, attested=attested, superseding=superseding, absence_s=absence_s, restarted=restarted)
    # What the capture and the objectives say is about records and positions that move.
    noticed = () if kind in STAYING else _capture_findings(coordinator, kind) + _bounded(captured.checkpoints, coordinator)
    objectives = () if kind in STAYING else (*over_rpo(estate.unit, source, target, captured.lag_seconds), *over_rto(coordinator))
    left_behind = recovering.findings(coordinator, kind) if kind in PLANNED else ()
    rebuilt = _rebuilt(coordinator, inventory, against, allow_data_loss=superseding) if kind == "rebuild" else ()
    lingering = _lingering(coordinator, inventory, source) if kind in PLANNED else ()
    losses = tuple(PartitionLossView(p.topic, p.partition, p.lag_records) for p in captured.partitions) if kind == "failover" else ()
    return PlanView(
        replication_group=estate.unit.name,
        kind=kind,
        source=source,
        target=target,
        epoch=inventory.record.epoch if inventory.record else 0,
        runbook=runbook.runbook,
        runbook_hash=digest,
        steps=steps,
        findings=lint(runbook)
        + tuple(_with_fence(coordinator, inventory.execution, one) for one in against)
        + (*lingering, *noticed, *objectives, *left_behind, *rebuilt),
        expected_loss=losses,
        positions=() if kind == "rebuild" else captured.checkpoints,
    )


def absence_s(coordinator: Coordinator) -> float | None:
    """Return for how long this agent has seen that nobody leads in the other region; only where that matters."""
    return coordinator.absence.look() if coordinator.estate.unit.self_fence_after_s is not None else None


def refusal(errors: Sequence[FindingView]) -> MrcError:
    """Return why a move is not begun, with a code by which scripts can tell.

    Where the request itself is at fault, that alone; else the code that all findings share, or the one that the others follow
    from; else ``PLAN_REFUSED``.
    """
    asked = [finding.code for finding in errors if finding.code in CODES and CODES[finding.code].kind == "usage"]
    said = [finding for finding in errors if finding.code == asked[0]] if asked else errors
    codes = list(dict.fromkeys(finding.code for finding in said))
    cause = codes[0] if len(codes) == 1 else next((code for code in _CAUSES if code in codes), "")
    code = cause if cause in CODES else "PLAN_REFUSED"
    where = dict.fromkeys(finding.where for finding in said if finding.code == code and finding.where)
    told = [finding.message if codes == [code] else f"{finding.code}: {finding.message}" for finding in said]
    return MrcError(code, "; ".join(told), where=", ".join(where))


def _lingering(coordinator: Coordinator, inventory: Inventory, source: Region) -> tuple[FindingView, ...]:
    """Say which leaders of the open region refuse writes: a switchover fences nothing before they have stopped to, but waits."""
    record = inventory.record
    if record is None or (record.region, record.state) != (source, "open") or not isinstance(inventory.regions[source].kafka, Known):
        return ()
    try:
        proof = fencing.prove(coordinator.estate, source, still=False)
    except MrcError:
        return ()  # a cluster that does not answer is told of by others
    if not proof.refusing:
        return ()
    message = (
        f"{source} is open and leaders refuse writes on {', '.join(map(str, proof.refusing))}, because of an earlier fence or of ACLs that"
        f" are not mrc's; the move waits for the end of that before it fences anything"
    )
    return (FindingView("FENCE_LINGERS", "warning", message, str(source)),)


def _with_fence(coordinator: Coordinator, execution: str, finding: FindingView) -> FindingView:
    """Return what stands against a move; where it is a fence in force, with how to go on."""
    if finding.code != "MOVE_IN_PROGRESS" or not execution:
        return finding
    try:
        plan = coordinator.estate.store.plan(execution)
    except MrcError:
        return finding  # garbled: the history says where
    if plan.kind != "fence":
        return finding
    told = f"a fence keeps {plan.source} closed until somebody lets it open again with `mrc approve {execution}`"
    return msgspec.structs.replace(finding, message=f"{finding.message}; {told}")


def _capture_findings(coordinator: Coordinator, kind: MoveKind) -> tuple[FindingView, ...]:
    """Return what the capture has noticed.

    A planned move waits until it has caught up, and needs copies that are recognised, for it compares them; an unplanned one
    cannot choose.
    """
    found = [_forbids(one, kind) for one in coordinator.noticed() if one.code != "CAPTURE_BEHIND"]
    if behind := coordinator.capture.behind():
        found.append(FindingView("CAPTURE_BEHIND", "error" if kind in PLANNED else "warning", behind, str(coordinator.flow)))
    return tuple(found)


def _forbids(finding: FindingView, kind: MoveKind) -> FindingView:
    return msgspec.structs.replace(finding, severity="error") if finding.code in FORBID_PLANNED and kind in PLANNED else finding


def _bounded(checkpoints: Sequence[CheckpointView], coordinator: Coordinator) -> tuple[FindingView, ...]:
    """Return what groups would read again because their positions are bounded, where any is."""
    again = [(one.translation.repeats_max, one) for one in checkpoints if one.translation.type == "bounded"]
    if not again:
        return ()
    most, worst = max(again, key=lambda row: row[0])
    message = (
        f"{len(again)} positions are bounded: up to {sum(repeats for repeats, _ in again)} records would be read again in all, "
        f"most by {worst.group} on {worst.topic}-{worst.partition} (up to {most})"
    )
    return (FindingView("POSITIONS_BOUNDED", "warning", message, str(coordinator.flow)),)


def _rebuilt(
    coordinator: Coordinator, inventory: Inventory, against: Sequence[FindingView], *, allow_data_loss: bool
) -> tuple[FindingView, ...]:
    """Return what a rebuild would do; nothing where a region does not answer, or where it is refused before that matters."""
    if any(one.severity == "error" for one in against) or any(isinstance(one.kafka, Unknown) for one in inventory.regions.values()):
        return ()
    return rebuilding.findings(coordinator.estate, coordinator.estate.region, allow_data_loss=allow_data_loss)
