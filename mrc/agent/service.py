"""What an agent answers to requests: views made from snapshots, and requests handed to the mover.

Nothing here waits on a cluster, except `verify` and `plan`, which look anew at regions that answer. Requests that only a
leader can answer are refused with ``NOT_LEADER`` and the leader's address in ``where``.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast, get_args

import msgspec

from mrc.agent import archive, committing, explaining, fencing, inspection, rebuilding, recovering
from mrc.agent.capture import FORBID_PLANNED
from mrc.agent.coordinator import Coordinator
from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.mover import Asked
from mrc.core.errors import CODES, MrcError
from mrc.core.failover import fence, rebuild
from mrc.core.failover.actions import ACTIONS
from mrc.core.failover.execution import ENDED, AbortAsked, Approved, Run, Skipped, replay
from mrc.core.failover.findings import findings
from mrc.core.failover.flows import should_run
from mrc.core.failover.plan import Plan, lint, make_plan
from mrc.core.failover.runbook import PLANNED, STAYING, MoveKind, Runbook
from mrc.core.failover.shown import entry_view, execution_view, report_of, unreadable_view
from mrc.core.inventory import Inventory, Position, Unit
from mrc.core.model import ActiveRecord, Flow, Known, Offset, Reading, Region, TopicPartition, Unknown
from mrc.core.translation.positions import Place
from mrc.core.views import (
    AgentView,
    CheckpointView,
    CommittedView,
    DivergenceRangeView,
    DivergenceView,
    EntryView,
    ExecutionView,
    ExplanationView,
    FindingView,
    FlowView,
    ForgottenView,
    GroupOffsetView,
    OffsetDiffView,
    PartitionLagView,
    PartitionLossView,
    PlanView,
    RecoveryProgressView,
    RecoveryView,
    RegionView,
    StatusView,
    StepView,
    TranslatedView,
    TranslationView,
    UnmovableView,
    VerifiedView,
    VersionView,
)

LoadRunbook = Callable[[str, str], tuple[Runbook, str]]
"""(replication group, kind) -> runbook and the SHA-256 of its file."""

T = TypeVar("T")

_HISTORY_MAX = 200

_REFUSED: Mapping[type[Asked], str] = {Approved: "APPROVE_REFUSED", AbortAsked: "ABORT_REFUSED", Skipped: "SKIP_REFUSED"}

ZOOKEEPER_WAIT_S = 0.6
"""How long all of a status's questions to ZooKeeper may take: a client waits a second for it, and is to be told of the silence."""

_CAUSES = ("AUTHENTICATION_FAILED", "CLUSTER_UNREACHABLE")
"""Findings that others follow from: of a cluster that does not answer nothing else can be read."""


class AgentService:
    """One agent's answers. Methods may be called from many threads at once."""

    def __init__(
        self,
        me: AgentNode,
        region: Region,
        leadership: Leadership,
        peers: Mapping[Region, Leadership],
        coordinators: Mapping[str, Coordinator],
        load_runbook: LoadRunbook,
    ) -> None:
        self._me = me
        self._region = region
        self._leadership = leadership
        self._peers = peers
        self._coordinators = coordinators
        self._load_runbook = load_runbook
        self._starting = threading.Lock()
        self._last_records: dict[str, tuple[ActiveRecord, int]] = {}

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
        """Return the replication group as this agent sees it now, from snapshots.

        Without a quorum of ZooKeeper, or with a garbled record, the rest is still shown: the record is None then, and a finding
        says why and what it said when it was read last.
        """
        coordinator = self._coordinator(rg)
        estate = coordinator.estate
        with estate.store.tree.within(ZOOKEEPER_WAIT_S):
            inventory, unread = self._look(coordinator)
            pairs, unseen = self._pairs(estate.unit.regions, unread)
            blocked = () if unread is not None or unseen else _blocked(coordinator)
        now_ms = estate.clock.now_ms()
        record = inventory.record
        flows = tuple(self._flow_view(coordinator, inventory, flow, partitions=False) for flow in sorted(estate.unit.connectors))
        late = [
            one for flow in flows if flow.wanted == "running" for one in _over_rpo(estate.unit, flow.source, flow.target, flow.lag_seconds)
        ]
        return StatusView(
            replication_group=estate.unit.name,
            mode=estate.unit.mode,
            policy=estate.unit.policy,
            record=record,
            record_age_s=(now_ms - record.at_ms) / 1000 if record else 0.0,
            regions=tuple(_region_view(coordinator, inventory, pairs[region], unread) for region in estate.unit.regions),
            flows=flows,
            execution=inventory.execution,
            findings=(*unseen, *blocked, *self._standing_findings(coordinator, inventory, unread), *late),
            answered_by=self._me.id,
            at_ms=now_ms,
        )

    def _look(self, coordinator: Coordinator) -> tuple[Inventory, FindingView | None]:
        """Return the last looks at all regions with the record as it is now; where it cannot be read, without it, and the reason."""
        observer, unit = coordinator.observer, coordinator.estate.unit
        now_ms = coordinator.estate.clock.now_ms()
        try:
            inventory = observer.inventory()
        except MrcError as error:
            last = self._last_records.get(unit.name)
            told = f"; {(now_ms - last[1]) / 1000:.1f} s ago {last[0].region} was {last[0].state}, epoch {last[0].epoch}" if last else ""
            blind = Inventory(unit, now_ms, None, {region: observer.region(region) for region in unit.regions})
            return blind, FindingView(error.code, "error", f"the active-region record cannot be read: {error.message}{told}", error.where)
        if inventory.record is not None:
            self._last_records[unit.name] = (inventory.record, now_ms)
        return inventory, None

    def _pairs(self, regions: Sequence[Region], unread: FindingView | None) -> tuple[dict[Region, _Pair], tuple[FindingView, ...]]:
        """Return who is alive in each region, and why not where it cannot be read; what said so of the record is not asked again."""
        pairs = {region: _Pair(region) for region in regions}
        if unread is not None:
            return pairs, ()
        try:
            for region in regions:
                pairs[region] = self._pair(region)
        except MrcError as error:
            return pairs, (FindingView(error.code, "error", f"the agents cannot be read: {error.message}", error.where),)
        return pairs, ()

    def _pair(self, region: Region) -> _Pair:
        peers = self._peers[region]
        leader = peers.leader()
        agents = tuple(AgentView(a.id, region, a.address, a.version, leader is not None and leader.id == a.id) for a in peers.agents())
        return _Pair(region, leader.id if leader else "", peers.current_term(), agents)

    def _flow_view(self, coordinator: Coordinator, inventory: Inventory, flow: Flow, *, partitions: bool) -> FlowView:
        estate = coordinator.estate
        inbound = inventory.regions[flow.target].inbound
        wanted = should_run(inventory.record, flow, estate.unit.policy) if inventory.record else None
        captured = coordinator.capture.snapshot() if flow == coordinator.flow and coordinator.leads else None
        now_ms = estate.clock.now_ms()
        unmeasured = Unknown("not-measured-here", f"the leading agent of {flow.target} measures this flow", now_ms)
        there = inventory.regions[flow.target].kafka
        # With a silent target nothing is read: that is the reason, not that nothing was read yet.
        silent = there if captured and not captured.partitions and isinstance(there, Unknown) else None
        rpo = captured.rpo if captured else "measured by the leading agent of the target"
        return FlowView(
            source=flow.source,
            target=flow.target,
            connector=estate.connector(flow),
            wanted={True: "running", False: "stopped", None: "moving"}[wanted] if inventory.record else "unknown",
            connector_state=inbound.value.state if isinstance(inbound, Known) else "UNKNOWN",
            tasks=inbound.value.tasks if isinstance(inbound, Known) else (),
            trace=inbound.value.trace if isinstance(inbound, Known) else inbound.detail,
            lag_records=silent or (captured.lag_records if captured else unmeasured),
            lag_seconds=silent or (captured.lag_seconds if captured else unmeasured),
            rpo=f"unknown: {silent.reason}" if silent else rpo,
            checkpoint_age_s=captured.checkpoint_age_s if captured else unmeasured,
            checkpoints=len(captured.checkpoints) if captured else 0,
            exact=sum(c.translation.type == "exact" for c in captured.checkpoints) if captured else 0,
            partitions=tuple(map(_whole, captured.partitions)) if captured and partitions else (),
        )

    def _standing_findings(self, coordinator: Coordinator, inventory: Inventory, unread: FindingView | None) -> tuple[FindingView, ...]:
        """Return what would stand against moving away from the active region now, and what the capture has noticed."""
        record = inventory.record
        if unread is not None:
            return (unread, *_self_fenced(inventory), *coordinator.noticed())
        if record is None and coordinator.estate.unit.mode == "active-active":
            return ()  # both are written, and there is to be none
        if record is None:
            return (FindingView("NO_ACTIVE_RECORD", "error", CODES["NO_ACTIVE_RECORD"].means),)
        try:
            coordinator.estate.require_mode(record)
        except MrcError as error:
            return (FindingView(error.code, "error", error.message, error.where), *coordinator.noticed())
        found = [*_self_fenced(inventory), *coordinator.noticed()]
        if record.state == "open" and not inventory.execution:
            target = coordinator.estate.unit.other(record.region)
            against = findings(inventory, "switchover", target, attested=False)
            found += [one for one in against if one.code != "PRODUCERS_CARRIED"]  # about who asks for a move, not about how things stand
        return tuple(found)

    def lag(self, rg: str) -> tuple[FlowView, ...]:
        """Return the flow into this agent's region with the lag of each partition.

        A flow that the record wants to run is measured by the capture, also while somebody keeps it from running: its lag is
        what the source has and the target has not. One that the record wants stopped is measured by `_standing_by`.
        """
        coordinator = self._leading(rg)
        inventory = coordinator.observer.inventory()
        view = self._flow_view(coordinator, inventory, coordinator.flow, partitions=True)
        return (_standing_by(coordinator, inventory, view) if view.wanted == "stopped" and not view.partitions else view,)

    # -- offsets

    def checkpoints(self, rg: str, group: str, topic: str) -> tuple[CheckpointView, ...]:
        """Return the checkpoints of the flow into this region; empty strings mean all."""
        coordinator = self._leading(rg)
        unit = coordinator.estate.unit
        if group and group not in unit.groups:
            raise MrcError("UNKNOWN_GROUP", f"no group {group!r}; there are: {', '.join(unit.groups)}")
        if topic and topic not in (topics := unit.read_in(coordinator.flow.source)):
            raise MrcError("UNKNOWN_TOPIC", f"no topic {topic!r}; there are: {', '.join(topics)}")
        found = coordinator.capture.snapshot().checkpoints
        return tuple(c for c in found if group in ("", c.group) and topic in ("", c.topic))

    def translate(self, rg: str, source: str, topic: str, partition: int, offset: int) -> TranslationView:
        """Translate an offset of region ``source`` into the other region's, by the map that this agent keeps."""
        coordinator = self._leading(rg)
        unit = coordinator.estate.unit
        if source not in unit.regions:
            raise MrcError("UNKNOWN_REGION", f"no region {source!r}; there are: {', '.join(unit.regions)}")
        if topic not in (topics := unit.read_in(coordinator.flow.source)):
            raise MrcError("UNKNOWN_TOPIC", f"no topic {topic!r}; there are: {', '.join(topics)}")
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
        coordinator = self._mover_of(rg, target)
        absence_s = _absence_s(coordinator)
        return self._plan_view(
            coordinator, self._kind(kind), attested=attested, superseding=allow_data_loss, absence_s=absence_s, restarted=restarted
        )

    def _plan_view(
        self, coordinator: Coordinator, kind: MoveKind, *, attested: bool, superseding: bool, absence_s: float | None, restarted: bool
    ) -> PlanView:
        estate, target = coordinator.estate, self._region
        source = estate.unit.other(target)
        inventory = coordinator.observer.observe()
        runbook, digest = self._load_runbook(estate.unit.name, kind)
        steps = tuple(
            StepView(s.name, s.action, "planned", ACTIONS[s.action].does, 0, s.approval, ACTIONS[s.action].opens)
            for s in runbook.steps
            if s.action in ACTIONS
        )
        captured = coordinator.capture.snapshot()
        against = findings(inventory, kind, target, attested=attested, superseding=superseding, absence_s=absence_s, restarted=restarted)
        # What the capture and the objectives say is about records and positions that move.
        noticed = () if kind in STAYING else _capture_findings(coordinator, kind) + _bounded(captured.checkpoints, coordinator)
        objectives = () if kind in STAYING else (*_over_rpo(estate.unit, source, target, captured.lag_seconds), *_over_rto(coordinator))
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
            before = self._by_token(coordinator, token)
            if before is not None:
                if (before.kind, before.target) != (kind, target):
                    raise MrcError("TOKEN_REUSED", f"token {token} started execution {before.id}", where=before.id)
                return self.execution(before.id)
            if allow_data_loss and kind not in ("failover", "rebuild"):
                message = "only a failover can take the place of a running move, and only a rebuild deletes records"
                raise MrcError("BAD_REQUEST", message, where="allow_data_loss")
            if allow_data_loss and kind == "rebuild" and not reason.strip():
                raise MrcError("BAD_REQUEST", "say why records may be lost: it is kept in the journal", where="reason")
            absence_s = _absence_s(coordinator)
            plan_view = self._plan_view(
                coordinator, self._kind(kind), attested=attested, superseding=allow_data_loss, absence_s=absence_s, restarted=restarted
            )
            errors = [f for f in plan_view.findings if f.severity == "error"]
            if errors:
                raise _refusal(errors)
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

    def _by_token(self, coordinator: Coordinator, token: str) -> Plan | None:
        """Return the plan that a token has begun.

        A plan that cannot be read is passed over, but for one in which the token still stands: what it began would be begun again.
        `mrc.agent.archive` and the history name it.
        """
        if not token:
            return None
        store = coordinator.estate.store
        for id in reversed(store.executions()[-_HISTORY_MAX:]):
            try:
                plan = store.plan(id)
            except MrcError as error:
                if error.code != "GARBLED_RECORD" or store.mentions(id, token):
                    raise
                continue
            if plan.token == token:
                return plan
        return None

    def _find(self, execution: str) -> tuple[Coordinator, Run]:
        """Return an execution's state: the mover's own, or replayed from the journal."""
        coordinator = self._holder(execution)
        return coordinator, _run(coordinator, execution)

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
        coordinator = self._coordinator(rg)
        return tuple(_listed(coordinator, name) for name in coordinator.estate.store.executions()[-_HISTORY_MAX:])

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


class _Pair(NamedTuple):
    """A region's leader and its term, and the agents that are alive; empty where nobody leads, or it cannot be read."""

    region: Region
    leader: str = ""
    term: int = 0
    agents: tuple[AgentView, ...] = ()


def _absence_s(coordinator: Coordinator) -> float | None:
    """Return for how long this agent has seen that nobody leads in the other region; only where that matters."""
    return coordinator.absence.look() if coordinator.estate.unit.self_fence_after_s is not None else None


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


def _self_fenced(inventory: Inventory) -> Iterator[FindingView]:
    """Say where agents have refused writes by themselves, and since when, until a leader that hears a majority has looked after it."""
    for region, seen in inventory.regions.items():
        imposed = fence.self_imposed(inventory.unit, seen.bindings.value if isinstance(seen.bindings, Known) else ())
        if imposed.marks:
            ago_s = (inventory.at_ms - imposed.since_ms) / 1000
            message = (
                f"agents of {region} heard no majority of ZooKeeper and have refused writes there by themselves since {ago_s:.0f} s:"
                f" {len(imposed.made)} refusals; they go when a leader of {region} has read a record that names it open"
            )
            yield FindingView("SELF_FENCED", "warning", message, str(region))


def _blocked(coordinator: Coordinator) -> tuple[FindingView, ...]:
    """Say into which regions a failover has blocked the flow, for as long as it has not been seen STOPPED; or why that cannot be read."""
    estate = coordinator.estate
    found = []
    for region in estate.unit.regions:
        try:
            stored, _ = estate.store.fence(region)
        except MrcError as error:
            found.append(FindingView(error.code, "error", f"the fence of {region} cannot be read: {error.message}", error.where))
            break
        if stored.block:
            refused = f"{', '.join(estate.unit.replicators)} may not write {', '.join(estate.unit.topics)} in {region}"
            message = (
                f"{refused} since execution {stored.block}, which could not stop the flow: that ends when Connect there has stopped it"
            )
            found.append(FindingView("FLOW_BLOCKED", "warning", message, str(region)))
    return tuple(found)


def _region_view(coordinator: Coordinator, inventory: Inventory, pair: _Pair, unread: FindingView | None) -> RegionView:
    seen = inventory.regions[pair.region]
    both = inventory.record is None and inventory.unit.mode == "active-active"
    active = both or (inventory.record is not None and inventory.record.region == pair.region)
    return RegionView(
        region=pair.region,
        role="unknown" if unread else "active" if active else "standby",
        kafka=seen.kafka,
        connect=seen.connect,
        fence=coordinator.fence(pair.region),
        leader=pair.leader,
        term=pair.term,
        agents=pair.agents,
    )


def _refusal(errors: Sequence[FindingView]) -> MrcError:
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


def _whole(partition: PartitionLagView) -> PartitionLagView:
    """Return a partition whose end is not below its position: ends are read once a second, and a log that was copied goes that far."""
    end, replicated = partition.source_end, partition.replicated
    if isinstance(end, Known) and isinstance(replicated, Known) and end.value < replicated.value:
        return msgspec.structs.replace(partition, source_end=replicated)
    return partition


def _standing_by(coordinator: Coordinator, inventory: Inventory, view: FlowView) -> FlowView:
    """Return a flow that the record wants stopped with what was read here and now: Connect's stored positions, then the live log ends.

    Only the identity policy has such flows: the one out of the standby. It copies nothing. What its source has behind the
    stored position came from its target by the other flow, or was left behind by a failover and is in the divergence
    ledger; a move gives it another position before it runs again. So its lag is not the distance of the two offsets, it is
    0: known while every leader of the source refuses writes, for then only the replicator writes there; else unknown.
    """
    estate, flow = coordinator.estate, coordinator.flow
    now_ms = estate.clock.now_ms()
    seen = inventory.regions[flow.source]
    here = inventory.regions[flow.target]
    # Connect keeps its positions in its own Kafka cluster: without that it does not answer in time.
    asked = here.kafka if isinstance(here.kafka, Unknown) else here.connect
    stored = _ask(asked, lambda: estate.replicators[flow.target].positions(view.connector), now_ms)
    topics = seen.topics if isinstance(seen.topics, Known) else here.topics
    counts = {name: len(info.leaders) for name, info in topics.value.items()} if isinstance(topics, Known) else {}
    tps = [TopicPartition(topic, p) for topic in estate.unit.topics for p in range(counts.get(topic, 0))]
    ends = _ask(seen.kafka, lambda: estate.clusters[flow.source].ends(tps, "read_committed"), now_ms)
    fence = coordinator.fence(flow.source)
    lag: Reading[float] = Known(0.0, now_ms)
    if isinstance(ends, Unknown):
        lag = ends
    elif fence.state != "fenced":
        lag = Unknown("fence-not-proved", f"{flow.source} may have taken writes of its own: {fence.detail}", fence.at_ms or now_ms)
    partitions = tuple(PartitionLagView(tp.topic, tp.partition, lag, lag, _at(ends, tp, now_ms), _at(stored, tp, now_ms)) for tp in tps)
    rpo = f"nothing: {flow.target} is active, the flow stands by" if isinstance(lag, Known) else f"unknown: {lag.reason}"
    return msgspec.structs.replace(view, lag_records=lag, lag_seconds=lag, rpo=rpo, partitions=partitions)


def _ask(seen: Reading[float], ask: Callable[[], T], now_ms: int) -> Reading[T]:
    """Ask a cluster that answered the observer the last time; a silent one is not waited for, its silence is the answer."""
    if isinstance(seen, Unknown):
        return seen
    try:
        return Known(ask(), now_ms)
    except MrcError as error:
        return Unknown(error.reason, str(error), now_ms)


def _at(offsets: Reading[dict[TopicPartition, Offset]], tp: TopicPartition, now_ms: int) -> Reading[float]:
    if isinstance(offsets, Unknown):
        return offsets
    if tp not in offsets.value:
        return Unknown("never-copied", f"Connect has stored no position of {tp}", now_ms)
    return Known(float(offsets.value[tp]), offsets.at_ms)


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


def _over_rpo(unit: Unit, source: str, target: str, lag: Reading[float]) -> Iterator[FindingView]:
    if unit.rpo_s is not None and isinstance(lag, Known) and lag.value > unit.rpo_s:
        message = f"a failover now would lose the last {lag.value:.1f} s; the objective rpo_s is {unit.rpo_s:g}"
        yield FindingView("RPO_EXCEEDED", "warning", message, f"{source}->{target}")


def _over_rto(coordinator: Coordinator) -> Iterator[FindingView]:
    """Compare the last move with the objective."""
    estate = coordinator.estate
    for last in estate.store.executions()[-1:]:
        view = _listed(coordinator, last)
        took_s = (view.ended_at_ms - view.started_at_ms) / 1000
        if (
            estate.unit.rto_s is not None
            and view.kind not in ("fence", "failback", "rebuild")
            and view.status == "succeeded"
            and took_s > estate.unit.rto_s
        ):
            message = f"the last {view.kind}, to {view.target}, took {took_s:.1f} s; the objective rto_s is {estate.unit.rto_s:g}"
            yield FindingView("RTO_EXCEEDED", "warning", message, last)


def _rebuilt(
    coordinator: Coordinator, inventory: Inventory, against: Sequence[FindingView], *, allow_data_loss: bool
) -> tuple[FindingView, ...]:
    """Return what a rebuild would do; nothing where a region does not answer, or where it is refused before that matters."""
    if any(one.severity == "error" for one in against) or any(isinstance(one.kafka, Unknown) for one in inventory.regions.values()):
        return ()
    return rebuilding.findings(coordinator.estate, coordinator.estate.region, allow_data_loss=allow_data_loss)


def _forbids(finding: FindingView, kind: MoveKind) -> FindingView:
    return msgspec.structs.replace(finding, severity="error") if finding.code in FORBID_PLANNED and kind in PLANNED else finding


# ---------------------------------------------------------------- views of executions


def _run(coordinator: Coordinator, execution: str) -> Run:
    run = coordinator.mover.run
    if run is not None and run.plan.id == execution:
        return run
    store = coordinator.estate.store
    return replay(store.plan(execution), store.entries(execution))


def _listed(coordinator: Coordinator, execution: str) -> ExecutionView:
    try:
        return execution_view(_run(coordinator, execution), coordinator.estate.clock.now_ms())
    except MrcError as error:
        if error.code != "GARBLED_RECORD":
            raise
        return unreadable_view(coordinator.estate.unit.name, execution, str(error))
