"""One run: the production agents of two regions in a world in which things go wrong, and what must be true at the end.

`run` is a function of its seed (and of what is left out): same seed, same trace, byte for byte. The agents are the production
coordinators, pumped one after another in an order that the seed decides, on one virtual clock.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection
from functools import partial

import msgspec

from mrc.core.inventory import Recovery
from mrc.core.model import ActiveRecord, Flow, GroupId, Region, decode
from mrc.sim import checkers
from mrc.sim.agents import REPLICATION_GROUP, write_first_record
from mrc.sim.checkers import Evidence, Opening, Violation
from mrc.sim.faults import AGENTS, CHAOS_S, happenings, region_of, self_fence_after_s
from mrc.sim.incarnation import Incarnation
from mrc.sim.mischief import Mischief
from mrc.sim.operators import Operators
from mrc.sim.scheduling import ScheduledClock, Scheduler
from mrc.sim.watching import Fences, Silences
from mrc.sim.workload import Consumer, Observed, Place, Producer
from mrc.sim.world import EAST, WEST, World, connector

REST_MAX_S = 240.0
"""How long after the healing everything may take to come to rest."""

LOOK_EVERY_S = 3.0

DEFAULT_POLICY_EVERY = 5
"""Of so many seeds in a row the last one is a replication group under the default policy, the others under identity."""

TRACE_MAX = 200_000

_OTHER_OLD_LOGS = 0.4
"""Of the runs that would leave old logs as they are, the part in which one topic's is purged and the other's, compacted, superseded."""

_RECORD = f"/groups/{REPLICATION_GROUP}/record"
_CURRENT = f"/groups/{REPLICATION_GROUP}/current"


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run.

    Attributes:
        left_out: indexes of happenings that were left out.
        violations: broken promises; none where all held.
        trace: SHA-256 of everything that happened, in order.
        counts: what the run was made of.
        happened: the happenings that were not left out, for people.
    """

    seed: int
    left_out: tuple[int, ...]
    violations: tuple[Violation, ...]
    trace: str
    counts: dict[str, int]
    happened: tuple[str, ...]


def run(seed: int, *, left_out: Collection[int] = (), tell: Callable[[str], None] | None = None) -> Outcome:
    """Run a seed to its end and judge it.

    Args:
        left_out: indexes of `happenings` that do not happen.
        tell: is given every line of the trace.
    """
    simulation = Simulation(seed, left_out, tell)
    try:
        return simulation.run()
    finally:
        simulation.close()


class Simulation:
    """The world, its agents and applications.

    Attributes:
        chaos: things still go wrong.
        agents: the present incarnation of each.
        rng: of whatever needs no randomness of its own.
    """

    def __init__(self, seed: int, left_out: Collection[int] = (), tell: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self._left_out = tuple(sorted(left_out))
        self._tell = tell
        self._hash = hashlib.sha256()
        self.rng = random.Random(f"world {seed}")
        self.scheduler = Scheduler()
        policies = random.Random(f"recovery {seed}")
        recovery = Recovery(
            policies.choice(("quarantine", "append", "untouched")),
            {},
            policies.choice(("keep", "keep", "recreate")),
            policies.choice((20, 5_000)),
        )
        # Of their own, so that seeds from before there were these policies are the runs that they were, but for the ones that have them.
        others = random.Random(f"old logs {seed}").random() < _OTHER_OLD_LOGS and recovery.old_log == "keep"
        if others:
            logs = {"orders": "purge", "payments": "supersede"}
            recovery = msgspec.structs.replace(recovery, topics={"payments": "quarantine"}, old_logs=logs)
        self.world = World(
            {"orders": 2, "payments": 1},
            policy="default" if seed % DEFAULT_POLICY_EVERY == DEFAULT_POLICY_EVERY - 1 else "identity",
            exactly_once=self.rng.random() < 0.5,
            clock=ScheduledClock(self.scheduler),
            self_fence_after_s=self_fence_after_s(seed),
            recovery=recovery,
        )
        for cluster in self.world.clusters.values() if others else ():
            cluster.contents["payments"].config["cleanup.policy"] = "compact"
        write_first_record(self.world)
        self.observed = Observed()
        self.violations: list[Violation] = []
        self.counts: dict[str, int] = {}
        self.evidence = Evidence(self.world, self.observed)
        self.mischief = Mischief(self)
        self.operators = Operators(self)
        self.silences, self.fences = Silences(self), Fences(self)
        self._pauses = 0
        self.evidence.pauses = lambda: self._pauses + sum(agent.process.paused for agent in self.agents.values())
        self.chaos = True
        self._quiet = self._adopted = False
        self._watch_record()
        self.agents = {name: Incarnation(self, name) for name in AGENTS}
        self._make_applications()
        self._plan_happenings()
        self._every(1.0, self.operators.attend)
        self._every(0.5, self.mischief.watch_holes)
        self._every(0.5, self.silences.look)
        self._every(0.7, self.fences.look)

    # -- the run

    def run(self) -> Outcome:
        """See `run`."""
        self.scheduler.run(CHAOS_S)
        self.mischief.heal()
        wrong: list[Violation] = []
        until_s = CHAOS_S + REST_MAX_S
        while self.scheduler.now_s < until_s:
            self.scheduler.run(self.scheduler.now_s + LOOK_EVERY_S)
            if self.moving():
                continue
            if not self._quiet:
                self._quiet = True
                continue
            wrong = checkers.at_rest(self.evidence, list(self.consumers), self._now())
            if not wrong:
                break
        self._say("end", f"at {self.scheduler.now_s:.0f} s")
        self.violations += checkers.executions(self.evidence, self.operators.waits_for(), self._now())
        self.violations += wrong or checkers.at_rest(self.evidence, list(self.consumers), self._now())
        self.violations += [*checkers.order(self.evidence), *self.fences.violations()]
        planned = happenings(self.seed)
        happened = tuple(f"{index}: {one}" for index, one in enumerate(planned) if index not in self._left_out)
        self.counts |= {
            "acks": len(self.observed.acks),
            "events": self.scheduler.events,
            "openings": len({o.epoch for o in self.evidence.openings}) - 1,
        }
        return Outcome(
            self.seed, self._left_out, tuple(self.violations), self._hash.hexdigest(), dict(sorted(self.counts.items())), happened
        )

    def close(self) -> None:
        """End every stack that waits."""
        for agent in self.agents.values():
            agent.process.dead = True
        self.scheduler.close()

    def trace(self, who: str, what: str) -> None:
        """Note something in the trace."""
        self._say(who, what)

    def violate(self, code: str, message: str) -> None:
        """Note a broken promise."""
        self.violations.append(Violation(code, message, self._now()))
        self._say("VIOLATION", f"{code} {message}")

    def restart(self, name: str, after_s: float) -> None:
        """Start an agent anew, later."""

        def start() -> None:
            if self.agents[name].process.dead:
                self._say(name, "starts")
                self._pauses += self.agents[name].process.paused
                self.agents[name] = Incarnation(self, name)
                self.mischief.link(self.agents[name])

        self.scheduler.after(after_s, start)

    def _now(self) -> float:
        return self.scheduler.now_s

    def _say(self, who: str, what: str) -> None:
        line = f"{self.scheduler.now_s:.3f} {who}: {what}\n"
        self._hash.update(line.encode())
        if self._tell is not None:
            self._tell(line)

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        rng = random.Random(f"{self.seed} {act.__name__}")

        def turn() -> None:
            act()
            self.scheduler.after(seconds * rng.uniform(0.7, 1.3), turn)

        self.scheduler.after(seconds * rng.random(), turn)

    # -- the record

    def record(self) -> ActiveRecord:
        """Return the record as it stands in ZooKeeper."""
        return decode(self.world.ensemble.nodes[_RECORD].data, ActiveRecord)

    def _watch_record(self) -> None:
        def changed() -> None:
            record = self.record()
            last = self.evidence.openings[-1]
            if (record.region, record.state, record.epoch) == (last.region, last.state, last.epoch):
                return
            self.evidence.openings.append(
                Opening(self.observed.order(), self._now(), record.region, record.state, record.epoch, record.execution)
            )
            self._say("record", f"{record.region} {record.state} epoch {record.epoch}")

        record = self.record()
        self.evidence.openings.append(Opening(0, 0.0, record.region, record.state, record.epoch, ""))
        self._watcher = self.world.tree()
        self._watcher.watch(_RECORD, changed)

    # -- applications

    def _make_applications(self) -> None:
        def place(region: Region) -> Place:
            made = Place(self.world, region, self.record, self.mischief.cut)
            self._every(self.rng.uniform(0.1, 1.5), made.refresh)
            return made

        self.producers: list[Producer] = []
        for region in (EAST, WEST):
            self.producers += [
                Producer(f"{region}-app", place(region), self.observed, self._now, stubborn=False),
                Producer(f"{region}-stubborn", place(region), self.observed, self._now, stubborn=True),
            ]
        self.transactional = {p.place.region: p for p in self.producers if p.name.endswith("stubborn")}
        self.consumers = tuple(
            Consumer(GroupId(group), place(EAST if self.rng.random() < 0.5 else WEST), batch)
            for group, batch in (("billing", 40), ("shipping", 3))
        )
        self.evidence.groups = tuple(c.group for c in self.consumers)
        for producer in self.producers:
            self._work(f"produce {producer.name}", partial(self._write, producer), 0.6)
        for consumer in self.consumers:
            self._work(f"consume {consumer.group}", consumer.turn, 0.7)
        for flow in self.world.flows:
            self._work(f"copy {flow}", partial(self._copy, flow), 0.5)

    def _write(self, producer: Producer, rng: random.Random) -> int:
        adopted = self._adopted = self._adopted or not checkers.missing_denies(self.world, WEST)
        return producer.write(rng.randint(1, 4), rng) if adopted and not self._quiet else 0

    def _work(self, name: str, act: Callable[[random.Random], object], every_s: float) -> None:
        rng = random.Random(f"{self.seed} {name}")

        def turn() -> None:
            did = act(rng)
            if did:
                self._say(name, str(did))
            self.scheduler.after(every_s * rng.uniform(0.5, 1.5), turn)

        self.scheduler.after(every_s * rng.random(), turn)

    def _copy(self, flow: Flow, rng: random.Random) -> int:
        if self.mischief.cut(EAST) or self.mischief.cut(WEST):
            return 0
        copied = self.world.replicators[flow.target].copy(connector(flow), rng.randint(2, 40), flush=rng.random() < 0.5)
        record = self.record()
        if copied and self.world.policy == "identity" and (record.region, record.state) == (flow.target, "open"):
            self._judge_late_copies(flow.target, copied)
        return copied

    def _judge_late_copies(self, target: Region, copied: int) -> None:
        # Where somebody has removed every DENY since the opening, the block of a flow that could not be stopped went with them.
        if self.evidence.opened_s.get(target, -1.0) < self.evidence.openings[-1].at_s:
            self.violate("OLD_FLOW", f"{copied} records were copied into {target}, which is open")

    # -- operators

    def leader(self, region: Region) -> Incarnation | None:
        """Return the agent that leads in a region, if one does."""
        return next((agent for agent in self.agents.values() if region_of(agent.name) == region and agent.leads), None)

    def led_beside(self, name: str) -> bool:
        """Return what the agents of the same region answer when one of them asks whether they lead."""
        agent = self.leader(region_of(name))
        return agent is not None and agent.name != name

    def moving(self) -> bool:
        """Whether an execution runs, a region is not open, or a transaction is not ended."""
        current = self.world.ensemble.nodes.get(_CURRENT)
        return bool(current and current.data) or self.record().state != "open" or bool(self.mischief.open)

    # -- what happens

    def _plan_happenings(self) -> None:
        for index, one in enumerate(happenings(self.seed)):
            if index not in self._left_out:
                self.scheduler.at(one.at_s, partial(self.mischief.happen, one))
