"""What an agent answers to requests: views made from snapshots, and requests handed to the mover.

Nothing here waits on a cluster, except `verify` and `plan`, which look anew at regions that answer. Requests that only a
leader can answer are refused with ``NOT_LEADER`` and the leader's address in ``where``.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import cast, get_args

from mrc.agent import archive, committing, executions, explaining, inspection, planning, rebuilding, recovering
from mrc.agent.coordinator import Coordinator
from mrc.agent.flow_views import flow_view, standing_by
from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.mover import Asked
from mrc.agent.status import Status
from mrc.core.errors import MrcError
from mrc.core.failover import fence, rebuild
from mrc.core.failover.execution import ENDED, AbortAsked, Approved, Run, Skipped
from mrc.core.failover.plan import make_plan
from mrc.core.failover.runbook import MoveKind
from mrc.core.failover.shown import entry_view, execution_view, report_of
from mrc.core.inventory import Position
from mrc.core.model import Known, Offset, Region, TopicPartition
from mrc.core.translation.positions import Place
from mrc.core.views import (
    CheckpointView,
    CommittedView,
    DivergenceRangeView,
    DivergenceView,
    EntryView,
    ExecutionView,
    ExplanationView,
    FlowView,
    ForgottenView,
    GroupOffsetView,
    OffsetDiffView,
    PlanView,
    RecoveryProgressView,
    RecoveryView,
    StatusView,
    TranslatedView,
    TranslationView,
    UnmovableView,
    VerifiedView,
    VersionView,
)

_REFUSED: Mapping[type[Asked], str] = {Approved: "APPROVE_REFUSED", AbortAsked: "ABORT_REFUSED", Skipped: "SKIP_REFUSED"}


class AgentService:
    """One agent's answers. Methods may be called from many threads at once."""

    def __init__(
        self,
        me: AgentNode,
        region: Region,
        leadership: Leadership,
        peers: Mapping[Region, Leadership],
        coordinators: Mapping[str, Coordinator],
        load_runbook: planning.LoadRunbook,
    ) -> None:
        self._me = me
        self._region = region
        self._leadership = leadership
        self._peers = peers
        self._coordinators = coordinators
        self._load_runbook = load_runbook
        self._starting = threading.Lock()
        self._status = Status(me.id, peers)

    # -- who is asked

    def _coordinator(self, replication_group: str) -> Coordinator:
        if not replication_group and len(self._coordinators) == 1:
            return next(iter(self._coordinators.values()))
        found = self._coordinators.get(replication_group)
        if found is None:
            names = ", ".join(sorted(self._coordinators))
            raise MrcError("UNKNOWN_REPLICATION_GROUP", f"no replication group {replication_group!r}; there are: {names}")
        return found

    def _leading(self, replication_group: str) -> Coordinator:
        coordinator = self._coordinator(replication_group)
        if not self._leadership.leads:
            leader = self._leadership.leader()
            where = leader.address if leader and leader.id != self._me.id else ""
            raise MrcError("NOT_LEADER", f"{self._me.id} does not lead in {self._region}", where=where, retryable=True)
        return coordinator

    def version(self) -> VersionView:
        """Return this agent's version."""
        return VersionView(self._me.id, self._region, self._me.version, self._leadership.leads)

    # -- status

    def status(self, rg: str) -> StatusView:
        """Return the replication group as this agent sees it now, from snapshots; see `mrc.agent.status`."""
        return self._status.of(self._coordinator(rg))

    def lag(self, rg: str) -> tuple[FlowView, ...]:
        """Return the flow into this agent's region with the lag of each partition.

        A flow that the record wants to run is measured by the capture, also while somebody keeps it from running: its lag is
        what the source has and the target has not. One that the record wants stopped is measured by `mrc.agent.flow_views.standing_by`.
        """
        coordinator = self._leading(rg)
        inventory = coordinator.observer.inventory()
        view = flow_view(coordinator, inventory, coordinator.flow, partitions=True)
        return (standing_by(coordinator, inventory, view) if view.wanted == "stopped" and not view.partitions else view,)

    # -- offsets

    def checkpoints(self, rg: str, group: str, topic: str) -> tuple[CheckpointView, ...]:
        """Return the checkpoints of the flow into this region; empty strings mean all."""
        coordinator = self._leading(rg)
        inspection.named(coordinator, group)
        if topic:
            _require_topic(coordinator, topic)
        found = coordinator.capture.snapshot().checkpoints
        return tuple(c for c in found if group in ("", c.group) and topic in ("", c.topic))

    def translate(self, rg: str, source: str, topic: str, partition: int, offset: int) -> TranslationView:
        """Translate an offset of region ``source`` into the other region's, by the map that this agent keeps."""
        coordinator = self._leading(rg)
        unit = coordinator.estate.unit
        if source not in unit.regions:
            raise MrcError("UNKNOWN_REGION", f"no region {source!r}; there are: {', '.join(unit.regions)}")
        _require_topic(coordinator, topic)
        return coordinator.capture.translate(Region(source), TopicPartition(topic, partition), Offset(offset))

    def verify(self, rg: str, group: str) -> Iterator[VerifiedView]:
        """Prove each checkpoint again by reading both sides."""
        coordinator = self._leading(rg)
        for checkpoint in self.checkpoints(rg, group, ""):
            yield coordinator.capture.verify(checkpoint)

    def group_offsets(self, rg: str, group: str) -> tuple[GroupOffsetView, ...]:
        """Return where groups stand on every partition; see `mrc.agent.inspection`, as for the three below."""
        return inspection.group_offsets(self._leading(rg), group)

    def diff(self, rg: str, group: str) -> tuple[OffsetDiffView, ...]:
        """Return the answers beside MM2's checkpoints and what is committed in the target."""
        return inspection.diff(self._leading(rg), group)

    def unmovable(self, rg: str) -> tuple[UnmovableView, ...]:
        """Return what group offsets do not move."""
        return inspection.unmovable(self._leading(rg))

    def translate_many(self, rg: str, places: Sequence[Place]) -> tuple[TranslatedView, ...]:
        """Translate many positions; none refuses the others."""
        return inspection.translate_many(self._leading(rg), places)

    def explain(self, rg: str, group: str, topic: str, partition: int | None) -> Iterator[ExplanationView]:
        """Show the records around a group's positions; see `mrc.agent.explaining`."""
        return explaining.explain(self._leading(rg), group, topic, partition)

    def apply_offsets(self, rg: str, group: str, dry_run: bool) -> tuple[CommittedView, ...]:
        """Commit a group's safe positions here; see `mrc.agent.committing`, as for the two below."""
        return committing.apply_offsets(self._leading(rg), group, dry_run=dry_run)

    def commit_offsets(
        self, rg: str, group: str, epoch: int, positions: Mapping[TopicPartition, Position], dry_run: bool
    ) -> tuple[CommittedView, ...]:
        """Commit given positions here."""
        return committing.commit_offsets(self._leading(rg), group, epoch, positions, dry_run=dry_run)

    def forget(self, rg: str, group: str, topic: str, dry_run: bool) -> tuple[ForgottenView, ...]:
        """Delete the checkpoints of a group that has no positions any more."""
        return committing.forget(self._leading(rg), group, topic, dry_run=dry_run)

    # -- moves

    def _kind(self, kind: str) -> MoveKind:
        if kind not in get_args(MoveKind):
            raise MrcError("BAD_REQUEST", f"kind is {kind!r}; allowed: {', '.join(get_args(MoveKind))}")
        return cast(MoveKind, kind)

    def _mover_of(self, rg: str, target: str) -> Coordinator:
        """Return the coordinator that may move to ``target``; only the agent leading there can."""
        coordinator = self._coordinator(rg)
        if target not in coordinator.estate.unit.regions:
            raise MrcError("UNKNOWN_REGION", f"no region {target!r}; there are: {', '.join(coordinator.estate.unit.regions)}")
        if target != self._region:
            leader = self._peers[Region(target)].leader()
            message = f"a move to {target} is executed by the agent that leads there"
            raise MrcError("NOT_LEADER", message, where=leader.address if leader else "", retryable=True)
        return self._leading(rg)

    def plan(self, rg: str, kind: str, target: str, attested: bool, allow_data_loss: bool, restarted: bool = False) -> PlanView:
        """Return what a move would do now, with every finding; touches nothing."""
        return self._planned(self._mover_of(rg, target), kind, attested, allow_data_loss, restarted)[0]

    def _planned(
        self, coordinator: Coordinator, kind: str, attested: bool, allow_data_loss: bool, restarted: bool
    ) -> tuple[PlanView, float | None]:
        """Return what a move would do now, and for how long nobody has led in the other region by then; see `planning.absence_s`."""
        absence_s = planning.absence_s(coordinator)
        view = planning.plan_view(
            coordinator,
            self._load_runbook,
            self._kind(kind),
            attested=attested,
            superseding=allow_data_loss,
            absence_s=absence_s,
            restarted=restarted,
        )
        return view, absence_s

    def start(
        self,
        rg: str,
        kind: str,
        target: str,
        token: str,
        actor: str,
        reason: str,
        attested: bool,
        allow_data_loss: bool,
        restarted: bool = False,
    ) -> ExecutionView:
        """Start a move; the same token answers with the same execution."""
        coordinator = self._mover_of(rg, target)
        with self._starting:
            before = executions.by_token(coordinator, token)
            if before is not None:
                if (before.kind, before.target) != (kind, target):
                    raise MrcError("TOKEN_REUSED", f"token {token} started execution {before.id}", where=before.id)
                return self.execution(before.id)
            if allow_data_loss and kind not in ("failover", "rebuild"):
                message = "only a failover can take the place of a running move, and only a rebuild deletes records"
                raise MrcError("BAD_REQUEST", message, where="allow_data_loss")
            if allow_data_loss and kind == "rebuild" and not reason.strip():
                raise MrcError("BAD_REQUEST", "say why records may be lost: it is kept in the journal", where="reason")
            plan_view, absence_s = self._planned(coordinator, kind, attested, allow_data_loss, restarted)
            errors = [f for f in plan_view.findings if f.severity == "error"]
            if errors:
                raise planning.refusal(errors)
            old = coordinator.estate.store.current()[0] if allow_data_loss and kind == "failover" else ""
            imposed = fence.assumed(coordinator.estate.unit, absence_s) if kind == "failover" and not attested else ""
            return self._begin(
                coordinator,
                plan_view,
                token,
                actor,
                reason,
                attested=attested,
                old=old,
                self_imposed=imposed,
                restarted=restarted,
                allow_data_loss=allow_data_loss and kind == "rebuild",
            )

    def _begin(
        self,
        coordinator: Coordinator,
        view: PlanView,
        token: str,
        actor: str,
        reason: str,
        *,
        attested: bool,
        old: str,
        self_imposed: str,
        restarted: bool,
        allow_data_loss: bool,
    ) -> ExecutionView:
        now_ms = coordinator.estate.clock.now_ms()
        runbook, digest = self._load_runbook(view.replication_group, view.kind)
        deletes = rebuild.deletes(rebuilding.topics(coordinator.estate, self._region)) if view.kind == "rebuild" else {}
        plan = make_plan(
            runbook,
            digest,
            execution=f"{now_ms:013d}-{secrets.token_hex(3)}",
            replication_group=view.replication_group,
            source=Region(view.source),
            target=Region(view.target),
            epoch=coordinator.estate.require_record()[0].epoch,
            now_ms=now_ms,
            token=token,
            attested=attested,
            actor=actor,
            reason=reason,
            supersedes=old,
            self_imposed=self_imposed,
            restarted=restarted,
            deletes=deletes,
            allow_data_loss=allow_data_loss,
        )
        coordinator.recorder.note(plan.id, view.findings)
        return execution_view(coordinator.mover.supersede(old, plan) if old else coordinator.mover.begin(plan), now_ms)

    def _find(self, execution: str) -> tuple[Coordinator, Run]:
        """Return an execution's state: the mover's own, or replayed from the journal."""
        coordinator = self._holder(execution)
        return coordinator, executions.run_of(coordinator, execution)

    def _holder(self, execution: str) -> Coordinator:
        for coordinator in self._coordinators.values():
            run = coordinator.mover.run
            if (run is not None and run.plan.id == execution) or execution in coordinator.estate.store.executions():
                return coordinator
        raise MrcError("UNKNOWN_EXECUTION", f"no execution {execution!r}")

    def execution(self, id: str) -> ExecutionView:
        """Return an execution as it stands now."""
        coordinator, run = self._find(id)
        return execution_view(run, coordinator.estate.clock.now_ms())

    def executions(self, rg: str) -> tuple[ExecutionView, ...]:
        """Return the last executions, oldest first; one whose plan or journal is garbled stands in its place and says where it is."""
        return executions.last(self._coordinator(rg))

    def history(self, id: str) -> tuple[EntryView, ...]:
        """Return an execution's journal; in the place of a garbled entry stands where it is."""
        store = self._holder(id).estate.store
        return tuple(entry_view(name, entry) for name, entry in store.journal(id))

    def report(self, id: str) -> str:
        """Return an execution's report as it stands, as a JSON document; see `mrc.core.failover.report`."""
        estate = self._holder(id).estate
        now_ms = estate.clock.now_ms()
        ledgers = tuple(ledger for ledger, _ in estate.store.ledgers())
        return report_of(archive.kept(estate.store, id), Known(ledgers, now_ms), now_ms)

    def watch(self, id: str) -> Iterator[ExecutionView]:
        """Yield the execution now and after each change, at least every second, until it has ended."""
        while True:
            view = self.execution(id)
            yield view
            if view.status in ENDED:
                return
            coordinator, _ = self._find(id)
            with coordinator.changed:
                coordinator.changed.wait(1.0)

    def approve(self, id: str, actor: str, reason: str) -> ExecutionView:
        """Approve what an execution waits for."""
        return self._ask(id, Approved(actor=actor, reason=reason))

    def abort(self, id: str, actor: str, reason: str) -> ExecutionView:
        """Ask an execution to undo its steps and end."""
        return self._ask(id, AbortAsked(actor=actor, reason=reason))

    def skip(self, id: str, actor: str, reason: str) -> ExecutionView:
        """Let an execution go on without the step that waits."""
        return self._ask(id, Skipped(actor=actor, reason=reason))

    def _ask(self, execution: str, event: Asked) -> ExecutionView:
        coordinator, run = self._find(execution)
        if run.phase in ENDED:
            code = _REFUSED[type(event)]
            raise MrcError(code, f"execution {execution} has {run.phase}", where=execution)
        if isinstance(event, AbortAsked) and self._orphaned(run):
            if coordinator.mover.idle:
                coordinator.mover.adopt(run.plan, event)
            return self.execution(execution)
        self._mover_of(run.plan.replication_group, run.plan.target)
        coordinator.mover.ask(event)
        return self.execution(execution)

    def _orphaned(self, run: Run) -> bool:
        """Whether this agent leads in a move's source while no agent is left where it moves to: then it may be undone from here."""
        return self._region == run.plan.source and self._leadership.leads and self._peers[run.plan.target].leader() is None

    # -- divergence

    def recover(self, rg: str, execution: str, doing: str) -> Iterator[RecoveryProgressView]:
        """Export or resolve what a failover left behind; see `mrc.agent.recovering`, as for the one below."""
        yield from recovering.recover(self._leading(rg), execution, doing)

    def recoveries(self, rg: str) -> tuple[RecoveryView, ...]:
        """Return what has become of divergent records so far."""
        return recovering.recoveries(self._leading(rg))

    def divergence(self, rg: str) -> tuple[DivergenceView, ...]:
        """Return the divergence ledger, oldest first."""
        coordinator = self._coordinator(rg)
        return tuple(
            DivergenceView(
                id=ledger.id,
                region=ledger.region,
                execution=ledger.execution,
                state=ledger.state,
                at_ms=ledger.at_ms,
                ranges=tuple(
                    DivergenceRangeView(t.topic, t.partition, t.begin if t.begin >= 0 else t.last_source + 1, t.end, t.records)
                    for t in ledger.tails
                ),
            )
            for ledger, _ in coordinator.estate.store.ledgers()
        )


def _require_topic(coordinator: Coordinator, topic: str) -> None:
    """Raise ``UNKNOWN_TOPIC`` for a topic that groups of the unit do not read in the flow's source."""
    if topic not in (topics := coordinator.estate.unit.read_in(coordinator.flow.source)):
        raise MrcError("UNKNOWN_TOPIC", f"no topic {topic!r}; there are: {', '.join(topics)}")
