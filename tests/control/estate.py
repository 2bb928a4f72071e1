"""Agents in memory, behind real gRPC servers on loopback: what the control plane and the command line are tested against.

`Agent` keeps the service's promises for one region: two agents share a `World`, one of them leads, a move's steps are
done one by one as the test says.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from mrc.config import Settings, load
from mrc.control.server import Server
from mrc.core.errors import MrcError
from mrc.core.inventory import Position
from mrc.core.model import ActiveRecord, Epoch, Known, Offset, Reading, Region, TopicPartition, Unknown
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
    FenceView,
    FindingView,
    FlowView,
    ForgottenView,
    GroupOffsetView,
    HeaderView,
    Mm2AnswerView,
    OffsetDiffView,
    PartitionLagView,
    PartitionLossView,
    PlanView,
    RecordView,
    RecoveryPartitionView,
    RecoveryProgressView,
    RecoveryView,
    RegionView,
    SideView,
    StatusView,
    StepView,
    SyncsView,
    SyncView,
    TranslatedView,
    TranslationView,
    UnmovableView,
    VerifiedView,
    VersionView,
)
from mrc.resolver.docket import Docket

NOW_MS = 1_790_000_000_000
REPORT = Path(__file__).parents[1] / "core" / "first_report.json"
ENDED = ("succeeded", "aborted")
STEPS = ("preflight", "fence-source", "open-target", "canary")
FENCE = ("preflight", "fence-source", "reopen-source")
GONE = Unknown("cluster-unreachable", "no answer within 3 s", NOW_MS)


def known(value: float) -> Reading[float]:
    return Known(value, NOW_MS)


def checkpoint(group: str = "billing", topic: str = "orders", partition: int = 0, source: str = "east") -> CheckpointView:
    target = "west" if source == "east" else "east"
    return CheckpointView(group, source, target, topic, partition, 1234, TranslationView("exact", 1240), 1200, 0.5)


class World:
    """What all agents of a test see alike."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.record: ActiveRecord | None = ActiveRecord(Region("east"), "open", Epoch(3), "", NOW_MS)
        self.findings: tuple[FindingView, ...] = ()
        self.verdict = "agrees"
        self.leaders: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.executions: dict[str, ExecutionView] = {}
        self.tokens: dict[str, ExecutionView] = {}
        self.auto = True
        self.approved: set[str] = set()
        self.committed: dict[tuple[str, str, int], int] = {}
        self.with_members: set[str] = set()
        self.accounted = False

    def put(self, execution: ExecutionView) -> ExecutionView:
        with self.changed:
            self.executions[execution.id] = execution
            self.changed.notify_all()
        return execution

    def advance(self, id: str) -> ExecutionView:
        """Do the next step of an execution, or end it."""
        with self.changed:
            execution = self.executions[id]
            if execution.status != "running":
                return execution
            at = next((n for n, step in enumerate(execution.steps) if step.state != "done"), len(execution.steps))
            steps = list(execution.steps)
            if at < len(steps) and steps[at].action == "reopen-source" and id not in self.approved:
                steps[at] = msgspec.structs.replace(steps[at], state="waiting")
                waits = "approval of step reopen-source"
                return self.put(msgspec.structs.replace(execution, steps=tuple(steps), status="waiting", waits_for=waits))
            if at < len(steps):
                steps[at] = msgspec.structs.replace(steps[at], state="done", evidence="seen", elapsed_ms=7)
            ended = at + 1 >= len(steps)
            return self.put(
                msgspec.structs.replace(
                    execution,
                    steps=tuple(steps),
                    status="succeeded" if ended else "running",
                    ended_at_ms=NOW_MS + 900 if ended else 0,
                )
            )


class Agent:
    """One agent's answers."""

    def __init__(self, world: World, region: str, name: str) -> None:
        self.world, self.region, self.name = world, region, name
        self.calls: list[str] = []

    @property
    def leads(self) -> bool:
        return self.world.leaders.get(self.region) == self.name

    def _lead(self) -> None:
        self.calls.append("lead")
        if not self.leads:
            where = self.world.addresses.get(self.world.leaders.get(self.region, ""), "")
            raise MrcError("NOT_LEADER", f"{self.name} does not lead", where=where, retryable=True)

    def version(self) -> VersionView:
        return VersionView(self.name, self.region, "0.1.0", self.leads)

    def status(self, rg: str) -> StatusView:
        if rg not in ("", "orders"):
            raise MrcError("UNKNOWN_REPLICATION_GROUP", f"no replication group {rg!r}", where=rg)
        running = next((e.id for e in self.world.executions.values() if e.status not in ENDED), "")
        active = self.world.record.region if self.world.record else ""
        regions = tuple(self._region(region, active) for region in ("east", "west"))
        flows = tuple(self._flow(source, target) for source, target in (("east", "west"), ("west", "east")))
        return StatusView(
            "orders",
            "active-passive",
            "identity",
            self.world.record,
            4.5,
            regions,
            flows,
            running,
            self.world.findings,
            self.name,
            NOW_MS,
        )

    def _region(self, region: str, active: str) -> RegionView:
        state = "open" if region == active else "fenced"
        agents = tuple(
            AgentView(name, region, address, "0.1.0", self.world.leaders.get(region) == name)
            for name, address in self.world.addresses.items()
            if name.startswith(region)
        )
        fence = FenceView(state, "every leader refuses", NOW_MS)
        role = "active" if region == active else "standby"
        connect = known(4.0) if region == self.region else GONE
        return RegionView(region, role, known(3.0), connect, fence, self.world.leaders.get(region, ""), 7, agents)

    def _flow(self, source: str, target: str, *, partitions: bool = False) -> FlowView:
        mine = target == self.region and self.leads
        lag = PartitionLagView("orders", 0, known(12), known(0.4), known(500), known(488))
        lost = PartitionLagView("orders", 1, GONE, GONE, GONE, known(9))
        return FlowView(
            source,
            target,
            f"mrc.orders.{source}-{target}",
            "running",
            "RUNNING" if mine else "UNKNOWN",
            ("RUNNING",),
            "",
            known(12) if mine else GONE,
            known(0.4) if mine else GONE,
            "at least 12 records, 0.4 s" if mine else "unknown",
            known(1.0) if mine else GONE,
            2,
            1,
            (lag, lost) if partitions else (),
        )

    def lag(self, rg: str) -> tuple[FlowView, ...]:
        self._lead()
        return (self._flow("west" if self.region == "east" else "east", self.region, partitions=True),)

    def checkpoints(self, rg: str, group: str, topic: str) -> tuple[CheckpointView, ...]:
        self._lead()
        if group not in ("", "billing", "shipping"):
            raise MrcError("UNKNOWN_GROUP", f"no group {group!r}")
        every = (checkpoint("billing"), checkpoint("shipping", "payments", 3)) if self.region == "west" else ()
        return tuple(c for c in every if group in ("", c.group) and topic in ("", c.topic))

    def translate(self, rg: str, source: str, topic: str, partition: int, offset: int) -> TranslationView:
        self._lead()
        if offset > 10_000:
            return TranslationView("unknown", reason="not-yet-replicated", detail="the record is not there yet")
        return TranslationView("exact", offset + 6)

    def verify(self, rg: str, group: str) -> Iterator[VerifiedView]:
        for one in self.checkpoints(rg, group, ""):
            yield VerifiedView(one, self.world.verdict, "the records were found")

    def group_offsets(self, rg: str, group: str) -> tuple[GroupOffsetView, ...]:
        rows = []
        for one in self.checkpoints(rg, group, ""):
            exact, committed = known(one.translation.offset), known(self.world.committed.get((one.group, one.topic, one.partition), 1240))
            rows.append(
                GroupOffsetView(
                    one.group,
                    one.source,
                    one.target,
                    one.topic,
                    one.topic,
                    one.partition,
                    known(one.source_offset),
                    one.translation,
                    exact,
                    "exact",
                    "meta",
                    known(one.age_s),
                    committed,
                )
            )
            none = TranslationView("unknown", reason="no-checkpoint", detail="nothing was captured")
            nothing = Unknown("no-position", "nothing is committed", NOW_MS)
            rows.append(msgspec.structs.replace(rows[-1], partition=99, source_offset=nothing, translation=none, safe_offset=nothing))
        return tuple(rows)

    def explain(self, rg: str, group: str, topic: str, partition: int | None) -> Iterator[ExplanationView]:
        record = RecordView(1234, NOW_MS, "k", 1, "value", 5, (HeaderView("trace", "abc", 3),))
        for one in self.checkpoints(rg, group, topic):
            if partition not in (None, one.partition):
                continue
            here, there = (
                SideView(region, one.topic, one.partition, known(1240), (), (record,), "") for region in (one.source, one.target)
            )
            syncs = SyncsView("west", "mm2-offset-syncs.east.internal", (SyncView(1000, 1006),), (), 7, "")
            mm2 = Mm2AnswerView(known(1007), (SyncView(1000, 1006),), 5, known(233), known(0))
            yield ExplanationView(one.group, here, there, True, False, one.translation, known(0.5), syncs, mm2)

    def diff(self, rg: str, group: str) -> tuple[OffsetDiffView, ...]:
        found = []
        for one in self.checkpoints(rg, group, ""):
            committed = self.world.committed.get((one.group, one.topic, one.partition), 1240)
            verdict = "agrees" if committed == 1240 else "behind" if committed < 1240 else "beyond"
            found.append(
                OffsetDiffView(
                    one.group,
                    one.source,
                    one.target,
                    one.topic,
                    one.topic,
                    one.partition,
                    known(one.source_offset),
                    known(1240),
                    "exact",
                    0,
                    known(1200),
                    known(1007),
                    known(committed),
                    verdict,
                    "",
                )
            )
        return tuple(found)

    def unmovable(self, rg: str) -> tuple[UnmovableView, ...]:
        self._lead()
        return (UnmovableView("not-configured", "reports", "orders", -1, "it has positions on 3 partitions"),)

    def translate_many(self, rg: str, places: Sequence[Place]) -> tuple[TranslatedView, ...]:
        self._lead()
        self.calls.append(f"translate {len(places)}")
        return tuple(
            TranslatedView(*place, self.translate(rg, place.region, place.topic, place.partition, place.offset)) for place in places
        )

    def apply_offsets(self, rg: str, group: str, dry_run: bool) -> tuple[CommittedView, ...]:
        wanted = {TopicPartition(one.topic, one.partition): Position(Offset(1240)) for one in self.checkpoints(rg, group, "")}
        return self.commit_offsets(rg, group, 0, wanted, dry_run)

    def commit_offsets(
        self, rg: str, group: str, epoch: int, positions: Mapping[TopicPartition, Position], dry_run: bool
    ) -> tuple[CommittedView, ...]:
        self.checkpoints(rg, group, "")
        self.calls.append(f"commit {group} {len(positions)} {dry_run}")
        if self.world.record is not None and epoch and epoch != self.world.record.epoch:
            raise MrcError("POSITIONS_STALE", f"the positions are of epoch {epoch}; now it is {self.world.record.epoch}")
        if group in self.world.with_members:
            raise MrcError("GROUP_HAS_MEMBERS", f"{group} has 2 members", where=self.region, retryable=True)
        found = []
        for tp, wanted in positions.items():
            before = known(self.world.committed.get((group, tp.topic, tp.partition), 1200))
            if not dry_run:
                self.world.committed[group, tp.topic, tp.partition] = wanted.offset
            after = Unknown("not-committed", "nothing was committed", NOW_MS) if dry_run else known(wanted.offset)
            found.append(CommittedView(group, tp.topic, tp.partition, before, known(wanted.offset), after, ""))
        return tuple(found)

    def forget(self, rg: str, group: str, topic: str, dry_run: bool) -> tuple[ForgottenView, ...]:
        if group == "billing":
            raise MrcError("GROUP_HAS_POSITIONS", "billing has positions on orders-0", where="east")
        self._lead()
        self.calls.append(f"forget {dry_run}")
        return tuple(ForgottenView(one.group, one.topic, one.partition, 1234, not dry_run) for one in self.checkpoints(rg, group, topic))

    def plan(self, rg: str, kind: str, target: str, attested: bool, allow_data_loss: bool = False, restarted: bool = False) -> PlanView:
        self._lead()
        losses = (PartitionLossView("orders", 0, known(12)), PartitionLossView("orders", 1, GONE)) if kind == "failover" else ()
        steps = tuple(
            StepView(name, name, "planned", f"will {name}", 0, False, name == "open-target")
            for name in (FENCE if kind == "fence" else STEPS)
        )
        source = "east" if target == "west" else "west"
        found = self.world.findings
        return PlanView("orders", kind, source, target, 3, kind, "ab" * 32, steps, found, losses, (checkpoint(),))

    def start(
        self,
        rg: str,
        kind: str,
        target: str,
        token: str,
        actor: str,
        reason: str,
        attested: bool,
        allow_data_loss: bool = False,
        restarted: bool = False,
    ) -> ExecutionView:
        plan = self.plan(rg, kind, target, attested)
        if token in self.world.tokens:
            return self.world.executions[self.world.tokens[token].id]
        if any(f.severity == "error" for f in plan.findings):
            raise MrcError("PLAN_REFUSED", "; ".join(f.message for f in plan.findings))
        if any(e.status not in ENDED for e in self.world.executions.values()):
            raise MrcError("MOVE_IN_PROGRESS", "another move is running")
        id = f"{len(self.world.executions) + 1:013d}-abc"
        made = ExecutionView(
            id, "orders", kind, plan.source, target, "running", "", plan.steps, NOW_MS, 0, actor, reason, plan.runbook_hash, True
        )
        self.world.tokens[token] = made
        return self.world.put(made)

    def execution(self, id: str) -> ExecutionView:
        if id not in self.world.executions:
            raise MrcError("UNKNOWN_EXECUTION", f"no execution {id!r}", where=id)
        return self.world.executions[id]

    def executions(self, rg: str) -> tuple[ExecutionView, ...]:
        return tuple(self.world.executions.values())

    def history(self, id: str) -> tuple[EntryView, ...]:
        self.execution(id)
        return (
            EntryView(0, NOW_MS, "west-a", 7, "started", "", '{"kind":"switchover"}'),
            EntryView(1, NOW_MS, "west-a", 7, "did", "drain", ""),
        )

    def report(self, id: str) -> str:
        self.execution(id)
        return REPORT.read_text()

    def watch(self, id: str) -> Iterator[ExecutionView]:
        self.calls.append("watch")
        while True:
            view = self.execution(id)
            yield view
            if view.status in ENDED:
                return
            if self.world.auto:
                self.world.advance(id)
            else:
                with self.world.changed:
                    self.world.changed.wait(0.1)

    def approve(self, id: str, actor: str, reason: str) -> ExecutionView:
        self._lead()
        execution = self.execution(id)
        if execution.status != "waiting":
            raise MrcError("APPROVE_REFUSED", "it waits for nobody", where=id)
        self.world.approved.add(id)
        return self.world.put(msgspec.structs.replace(execution, status="running", waits_for=""))

    def skip(self, id: str, actor: str, reason: str) -> ExecutionView:
        self._lead()
        execution = self.execution(id)
        if execution.status != "waiting":
            raise MrcError("SKIP_REFUSED", "it waits for nobody", where=id)
        return self.world.put(msgspec.structs.replace(execution, status="running", waits_for=""))

    def abort(self, id: str, actor: str, reason: str) -> ExecutionView:
        self._lead()
        execution = self.execution(id)
        if execution.status in ENDED:
            raise MrcError("ABORT_REFUSED", "it has ended", where=id)
        return self.world.put(msgspec.structs.replace(execution, status="aborted", reason=reason, ended_at_ms=NOW_MS))

    def divergence(self, rg: str) -> tuple[DivergenceView, ...]:
        ranges = (DivergenceRangeView("orders", 0, 100, 120, 20), DivergenceRangeView("orders", 1, 90, -1, -1))
        return (DivergenceView("1", "east", "0000-abc", "open", NOW_MS, ranges),)

    def recover(self, rg: str, execution: str, doing: str) -> Iterator[RecoveryProgressView]:
        self._lead()
        if execution != "0000-abc":
            raise MrcError("UNKNOWN_EXECUTION", f"no failover {execution!r}")
        for done in (0, 500, 620):
            yield RecoveryProgressView(execution, doing, done, 620)

    def recoveries(self, rg: str) -> tuple[RecoveryView, ...]:
        self._lead()
        first = RecoveryPartitionView("orders", 0, "untouched", 620, 620, 600, 18, 2, 1)
        return (RecoveryView("0000-abc", "east", "listed", self.world.accounted, (first,)),)


class NoDockets:
    """Agents of regions in which nothing is resolved."""

    def docket(self, rg: str, topic: str, check: Callable[[], None]) -> AbstractContextManager[Docket]:
        raise MrcError("CONFIG_INVALID", f"replication group {rg} names no conflict rules")


class Estate:
    """Two regions with two agents each, as a configuration file and as servers that can be stopped."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.agents: dict[str, Agent] = {}
        self.servers: dict[str, Server] = {}
        for region in ("east", "west"):
            for name in (f"{region}-a", f"{region}-b"):
                self.agents[name] = Agent(self.world, region, name)
                self.servers[name] = Server(self.agents[name], NoDockets(), "127.0.0.1:0")
                self.world.addresses[name] = self.servers[name].start()
            self.world.leaders[region] = f"{region}-b"
        self.path = folder / "mrc.yaml"
        self.path.write_text(json.dumps(self._written()))
        self.settings: Settings = load(self.path)

    def _written(self) -> dict[str, object]:
        def region(name: str, port: int) -> dict[str, object]:
            agents = [
                {"id": id, "grpc": address, "metrics": f"127.0.0.1:{port + 10 + n}"}
                for n, (id, address) in enumerate(self.world.addresses.items())
                if id.startswith(name)
            ]
            return {"kafka": {"bootstrap": f"127.0.0.1:{port}"}, "connect": {"url": f"http://127.0.0.1:{port + 1}"}, "agents": agents}

        flows = [{"source": s, "target": t, "connector": f"mrc.orders.{s}-{t}"} for s, t in (("east", "west"), ("west", "east"))]
        return {
            "version": 1,
            "zookeeper": {"connect": "127.0.0.1:2181"},
            "regions": {"east": region("east", 100), "west": region("west", 200)},
            "replication_groups": [
                {
                    "name": "orders",
                    "mode": "active-passive",
                    "policy": "identity",
                    "topics": ["orders", "payments"],
                    "groups": ["billing", "shipping"],
                    "flows": flows,
                }
            ],
        }

    def stop(self, *names: str) -> None:
        for name in names or tuple(self.servers):
            if name in self.servers:
                self.servers.pop(name).stop(0.1)
