"""Operators of a run: they start moves, answer what executions wait for, abort, and sometimes lose patience."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import mrc
from mrc.config.runbook import load_runbook
from mrc.core.errors import MrcError
from mrc.core.failover import fence
from mrc.core.failover.execution import ENDED, AbortAsked, Approved
from mrc.core.failover.findings import findings
from mrc.core.failover.plan import make_plan
from mrc.core.failover.runbook import MoveKind
from mrc.core.model import Region
from mrc.sim.agents import REPLICATION_GROUP
from mrc.sim.incarnation import Incarnation
from mrc.sim.world import other

if TYPE_CHECKING:
    from mrc.sim.run import Simulation

_PATIENCE = 6
"""How often an execution is approved after the healing before it is aborted, where it still can be."""


def _runbooks() -> Path:
    package = Path(mrc.__file__).parent
    installed = package / "runbooks"
    return installed if installed.is_dir() else package.parent / "runbooks"


_BOOKS = {kind: load_runbook(_runbooks() / f"{kind}.yaml") for kind in ("switchover", "failover", "fence", "failback")}


class Operators:
    """They ask the agent that leads where the unit is to move, as the service does."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._rng = random.Random(f"operator {simulation.seed}")
        self._asked: dict[str, int] = {}

    def begin(self, kind: MoveKind, *, may_live: bool, attested: bool = True, tries: int = 6) -> None:
        """Start a move to the region that is not active, as an operator does; try again where nobody can be asked.

        Args:
            attested: of a failover, a person says that the source is dead; else its agents must have fenced it, which takes its time.
        """
        record = self._simulation.record()
        source = record.region if record.state != "closed" else other(record.region)
        target = other(source)
        if (
            kind == "failover"
            and not may_live
            and self._simulation.world.clusters[source].reachable
            and not self._simulation.mischief.cut(source)
        ):
            self._simulation.trace("operator", f"no failover: {source} lives")
            return
        if kind == "switchover" and self._left_behind(target) and self._rng.random() < 0.7:
            kind = "failback"
        agent = self._simulation.leader(target)
        if agent is None:
            if tries:
                self._simulation.scheduler.after(1.0, lambda: self.begin(kind, may_live=may_live, attested=attested, tries=tries - 1))
            return

        def start() -> None:
            try:
                answer = self._start_move(agent, kind, source, target, attested=attested)
                self._simulation.trace("operator", f"{kind} to {target}: {answer}")
                if "NOT_ATTESTED" in answer and tries and self._simulation.chaos:
                    self._simulation.scheduler.after(1.5, lambda: self.begin(kind, may_live=may_live, attested=attested, tries=tries - 1))
            except MrcError as error:
                if error.kind == "bug":
                    self._simulation.violate("AGENT_WRONG", f"{agent.name}, begin: {error}")
                self._simulation.trace("operator", f"{kind} to {target}: {error.code}")

        self._simulation.scheduler.after(0.0, start, agent.process)

    def _left_behind(self, region: Region) -> bool:
        """Whether something that a failover left behind in a region is not accounted for; what comes late is left to the flow."""
        return self._simulation.world.policy == "identity" and any(
            one["region"] == region and not one.get("accounts") for one in self._simulation.evidence.ledgers()
        )

    def _start_move(self, agent: Incarnation, kind: MoveKind, source: Region, target: Region, *, attested: bool) -> str:
        coordinator = agent.sim.coordinator
        seen = coordinator.observer.observe()
        old = seen.execution if kind == "failover" and self._rng.random() < 0.5 else ""
        unit, attested = coordinator.estate.unit, attested and kind == "failover"
        absence_s = coordinator.absence.look() if unit.self_fence_after_s is not None else None
        found = findings(seen, kind, target, attested=attested, superseding=bool(old), absence_s=absence_s)
        against = [one.code for one in found if one.severity == "error"]
        if against:
            return f"refused, {', '.join(against)}"
        book, digest = _BOOKS[kind]
        number = self._simulation.counts.get("moves", 0)
        self._simulation.counts["moves"] = number + 1
        plan = make_plan(
            book,
            digest,
            execution=f"{number:04d}",
            replication_group=REPLICATION_GROUP,
            source=source,
            target=target,
            epoch=coordinator.estate.require_record()[0].epoch,
            now_ms=agent.clock.now_ms(),
            token="",
            attested=attested,
            actor="operator",
            reason="",
            supersedes=old,
            self_imposed=fence.assumed(unit, absence_s) if kind == "failover" and not attested else "",
        )
        if old:
            self._ends(old)
            coordinator.mover.supersede(old, plan)
        else:
            coordinator.mover.begin(plan)
        return f"{plan.id} in the place of {old}" if old else plan.id

    def attend(self) -> None:
        """Answer what executions wait for, now and then; after the healing always, and at last end what cannot go on."""
        for agent in self._simulation.agents.values():
            run = agent.run
            if run is None or run.phase != "waiting" or not agent.leads or (self._simulation.chaos and self._rng.random() < 0.7):
                continue
            times = self._asked[run.plan.id] = self._asked.get(run.plan.id, 0) + 1
            patient = times <= _PATIENCE if not self._simulation.chaos else self._rng.random() < 0.7
            self.ask(agent, Approved("operator") if patient or not run.abortable else AbortAsked("operator"))

    def ask(self, agent: Incarnation, event: Approved | AbortAsked) -> None:
        """Let an execution go on, or end it."""

        def ask() -> None:
            try:
                run = agent.run
                agent.sim.coordinator.mover.ask(event)
                if run is not None and (isinstance(event, AbortAsked) or run.step.action == "reopen-source"):
                    self._ends(run.plan.id)
                self._simulation.trace("operator", type(event).__name__)
            except MrcError as error:
                self._simulation.trace("operator", f"{type(event).__name__}: {error.code}")

        self._simulation.scheduler.after(0.0, ask, agent.process)

    def _ends(self, execution: str) -> None:
        """Note that a person has asked for the end of an execution, which may be a fence."""
        self._simulation.evidence.fences_ended.setdefault(execution, self._simulation.observed.order())

    def waits_for(self) -> str:
        """Return what the running execution says that it waits for, or how the step that it tries again has failed last."""
        runs = [run for agent in self._simulation.agents.values() if (run := agent.run) and run.phase not in ENDED]
        return "; ".join(run.waiting.message if run.waiting else run.evidence.get(run.step.name, "") for run in runs)
