"""Two regions, two agents each, applications: a whole estate in memory, and what must be true of it at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from mrc.config.runbook import load_runbook
from mrc.core.failover.execution import ENDED, AbortAsked, Approved, Run, replay
from mrc.core.failover.plan import make_plan
from mrc.core.failover.runbook import MoveKind
from mrc.core.inventory import Recovery
from mrc.core.model import GroupId, Policy, Region
from mrc.sim.agents import Applications, SimAgent, contents, write_first_record
from mrc.sim.world import EAST, WEST, World, other

RUNBOOKS = Path(__file__).resolve().parents[2] / "runbooks"
ROUNDS_MAX = 400
BILLING, SHIPPING = GroupId("billing"), GroupId("shipping")


class Estate:
    """The harness: `round` lets everything run a little, `move` runs an execution to its end."""

    def __init__(
        self,
        *,
        topics: Mapping[str, int] | None = None,
        policy: Policy = "identity",
        exactly_once: bool = False,
        self_fence_after_s: float | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self.world = World(topics, policy=policy, exactly_once=exactly_once, self_fence_after_s=self_fence_after_s, recovery=recovery)
        write_first_record(self.world)
        self.agents = {name: self._agent(name) for name in ("east-a", "east-b", "west-a", "west-b")}
        self.asleep: set[str] = set()
        self.talking = True
        self.applications = Applications(self.world)
        self.producing = True
        self.replicating = True
        self.consuming: dict[GroupId, int] = {BILLING: 1_000, SHIPPING: 1}
        self._in_round = False
        self.world.clock.meanwhile = self._meanwhile

    def _agent(self, name: str) -> SimAgent:
        return SimAgent(self.world, Region(name[:4]), name, led_beside=lambda: self._led_beside(name))

    def _led_beside(self, name: str) -> bool:
        """What the region's other agents answer, where agents reach one another at all."""
        beside = [a for a in self.agents.values() if a.name != name and a.name[:4] == name[:4] and a.alive and a.name not in self.asleep]
        return self.talking and any(agent.leadership.leads for agent in beside)

    def _meanwhile(self) -> None:
        """While an agent waits inside an effect, everything else goes on, but for movers."""
        if not self._in_round:
            self._run(move=False)

    def round(self) -> None:
        """Let a tenth of a second pass for everything."""
        self.world.clock.sleep(0.1)
        self._run(move=True)

    def _run(self, *, move: bool) -> None:
        if self._in_round and not move:
            return
        self._in_round = not move
        try:
            if self.producing:
                self.applications.produce(11)
            if self.replicating:
                self.world.replicate()
            self.applications.consume(self.consuming)
            for agent in self.agents.values():
                if agent.name not in self.asleep:
                    agent.pump(move=move)
            self.world.ensemble.expire_silent()
        finally:
            self._in_round = False

    def settle(self, rounds: int = 15) -> None:
        """Run some rounds."""
        for _ in range(rounds):
            self.round()

    def leader(self, region: Region) -> SimAgent:
        """Return the agent that leads in a region."""
        return next(a for a in self.agents.values() if a.alive and a.name.startswith(region) and a.leadership.leads)

    def begin(
        self, kind: MoveKind, target: Region, *, attested: bool = False, runbook: Path | None = None, patience_s: float | None = None
    ) -> None:
        """Start a move, as the service does.

        Args:
            patience_s: what a step may take at most, whatever its runbook says; it is tried twice at most then.
        """
        agent = self.leader(target)
        coordinator = agent.coordinator
        book, digest = load_runbook(runbook or RUNBOOKS / f"{kind}.yaml")
        plan = make_plan(
            book,
            digest,
            execution=f"{self.world.clock.now_ms()}",
            replication_group="orders",
            source=coordinator.estate.unit.other(target),
            target=target,
            epoch=coordinator.estate.require_record()[0].epoch,
            now_ms=self.world.clock.now_ms(),
            token="",
            attested=attested,
            actor="test",
            reason="",
        )
        if patience_s is not None:
            hasty = (replace(step, timeout_s=min(step.timeout_s, patience_s), retries=min(step.retries, 1)) for step in plan.steps)
            plan = replace(plan, steps=tuple(hasty))
        coordinator.mover.begin(plan)

    def run_of(self, target: Region) -> Run | None:
        """Return the last execution: as a living mover has it, else as the journal tells it; None while nobody has taken it over."""
        for agent in self.agents.values():
            if agent.alive and agent.name.startswith(target) and agent.coordinator.mover.run:
                return agent.coordinator.mover.run
        store = next(a for a in self.agents.values() if a.alive).coordinator.estate.store
        executions = store.executions()
        if executions and not store.current()[0]:
            return replay(store.plan(executions[-1]), store.entries(executions[-1]))
        return None

    def until(self, *phases: str, target: Region = WEST) -> Run:
        """Run rounds until the execution is in one of these phases."""
        for _ in range(ROUNDS_MAX):
            self.round()
            run = self.run_of(target)
            if run is not None and run.phase in phases:
                return run
        raise AssertionError(f"never {phases}: {self.run_of(target)}")

    def restart(self, region: Region) -> None:
        """Start a region's agents anew; those that ran are killed where they live."""
        for name in (f"{region}-a", f"{region}-b"):
            self.stop(name)
            self.agents[name] = self._agent(name)

    def until_step(self, step: str) -> Run:
        """Run rounds until the execution that moves to west is at this step."""
        for _ in range(ROUNDS_MAX):
            self.round()
            run = self.run_of(WEST)
            if run is not None and run.phase not in ENDED and run.step.name == step:
                return run
        raise AssertionError(f"never came to {step}: {self.run_of(WEST)}")

    def lose(self, region: Region) -> None:
        """Let a region die, its agents too."""
        self.world.lose(region)
        for name in (f"{region}-a", f"{region}-b"):
            self.stop(name)

    def regain(self, region: Region) -> None:
        """Let a region live again, with agents that know nothing."""
        self.world.regain(region)
        self.restart(region)

    def stop(self, name: str) -> None:
        """Kill an agent."""
        self.agents[name].alive = False
        self.agents[name].tree.expire()

    def finish(self, target: Region, answer: Approved | AbortAsked | None = None) -> Run:
        """Run rounds until the execution has ended; a person answers whatever it waits for, with an approval where nothing else is said."""
        for _ in range(ROUNDS_MAX):
            self.round()
            run = self.run_of(target)
            if run is None:
                continue
            if run.phase in ENDED:
                return run
            if run.phase == "waiting":
                self.leader(target).coordinator.mover.ask(answer or Approved("test"))
        raise AssertionError(f"did not end: {self.run_of(target)}")

    def move(self, kind: MoveKind, target: Region, *, attested: bool = False) -> Run:
        """Start a move and see it end."""
        self.begin(kind, target, attested=attested)
        return self.finish(target)

    def drain(self) -> None:
        """Stop producing and let every group read everything."""
        self.producing = False
        self.consuming = dict.fromkeys(self.world.groups, 10_000)
        self.settle(20)

    # -- what must be true

    def wrong(self) -> list[str]:
        """Return every broken promise; call it after `drain`. Nothing here asks mrc."""
        found = []
        active = self.applications.record().region
        present = {tp: contents(self.world, active, tp) for tp in self.world.read_tps(active)}
        everything = [value for values in present.values() for value in values]
        lost = self.applications.acked.keys() - set(everything)
        if lost:
            found.append(f"lost {len(lost)} acknowledged records")
        if len(everything) != len(set(everything)):
            found.append("records stand twice in the active region's log")
        for group, processed in self.applications.processed.items():
            if set(everything) - set(processed):
                found.append(f"{group} skipped {len(set(everything) - set(processed))}")
            if len(processed) != len(set(processed)):
                found.append(f"{group} processed {len(processed) - len(set(processed))} twice")
        for region in (active,) if self.world.policy == "identity" else (EAST, WEST):
            for tp in self.world.tps():
                values, mirror = contents(self.world, region, tp), contents(self.world, other(region), self.world.mirror(region, tp))
                if mirror != values:
                    found.append(f"{tp} of {region}: the mirror holds {len(mirror)} records of {len(values)}")
        return found

    def end_state(self) -> dict[str, object]:
        """Return what has to be the same however an execution came to its end."""
        record = self.applications.record()
        return {
            "record": (record.region, record.state, record.epoch),
            "denies": {
                region: sorted((b.resource, b.name, b.principal, b.operation) for b in cluster.acls.bindings if b.permission == "deny")
                for region, cluster in self.world.clusters.items()
            },
            "connectors": {
                region: {name: one.state for name, one in replicator.connectors.items()}
                for region, replicator in self.world.replicators.items()
            },
        }


def settled() -> Estate:
    """Return an estate in which agents lead, flows run and groups have positions."""
    estate = Estate()
    estate.settle()
    return estate
