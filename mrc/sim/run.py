"""One run: the production agents of two regions in a world in which things go wrong, and what must be true at the end.

`run` is a function of its seed (and of what is left out): same seed, same trace, byte for byte. The agents are the production
coordinators, pumped one after another in an order that the seed decides, on one virtual clock.
"""

from __future__ import annotations

import hashlib
import random
import traceback
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import msgspec

import mrc
from mrc.config.runbook import load_runbook
from mrc.core.errors import MrcError
from mrc.core.failover.execution import ENDED, AbortAsked, Approved, Run
from mrc.core.failover.findings import findings
from mrc.core.failover.plan import make_plan
from mrc.core.failover.runbook import MoveKind
from mrc.core.model import ActiveRecord, Flow, GroupId, Region, decode
from mrc.sim import checkers
from mrc.sim.agents import REPLICATION_GROUP, SimAgent, write_first_record
from mrc.sim.checkers import Evidence, Opening, Violation
from mrc.sim.faults import AGENTS, CHAOS_S, Happening, happenings, region_of
from mrc.sim.links import AgentProcess, Fate
from mrc.sim.scheduling import ScheduledClock, Scheduler
from mrc.sim.workload import Consumer, Observed, Place, Producer
from mrc.sim.world import EAST, WEST, World, connector

REST_MAX_S = 240.0
"""How long after the healing everything may take to come to rest."""

LOOK_EVERY_S = 3.0
TRACE_MAX = 200_000

_RECORD = f"/groups/{REPLICATION_GROUP}/record"
_CURRENT = f"/groups/{REPLICATION_GROUP}/current"

PERIODS = {"lead": 0.8, "observe": 4.0, "fence": 1.0, "flow": 1.2, "capture": 0.6, "sync": 2.0, "move": 0.3}
"""Seconds between two turns of an agent's pumps, about."""


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


def _runbooks() -> Path:
    package = Path(mrc.__file__).parent
    installed = package / "runbooks"
    return installed if installed.is_dir() else package.parent / "runbooks"


_BOOKS = {kind: load_runbook(_runbooks() / f"{kind}.yaml") for kind in ("switchover", "failover")}


class _Agent:
    """One incarnation of an agent: its process and its pumps, each with a turn of its own."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self._simulation = simulation
        self.name = name
        scheduler = simulation.scheduler
        self.process = AgentProcess(name, scheduler, simulation.trace)
        self._rng = random.Random(f"{simulation.seed} {name} {scheduler.now_s}")
        self.clock = ScheduledClock(scheduler, self.process, grain_s=self._rng.choice((0.1, 0.25, 0.5)))
        self.sim = SimAgent(simulation.world, region_of(name), name, clock=self.clock, wire=self.process.wire)
        self.process.tree = self.sim.tree
        self.asked_at_s = scheduler.now_s
        coordinator = self.sim.coordinator
        self._start("lead", self._lead)
        for region in coordinator.estate.unit.regions:
            self._start("observe", partial(coordinator.observer.refresh, region))
            self._start("fence", partial(coordinator.fence_tick, region))
        self._start("flow", coordinator.flow_tick)
        self._start("capture", coordinator.capture_tick)
        self._start("sync", coordinator.sync_tick)
        self._start("move", coordinator.move_tick)

    @property
    def leads(self) -> bool:
        """Whether it is alive, runs and leads."""
        return not self.process.dead and self.process.paused_until_s <= self._simulation.scheduler.now_s and self.sim.leadership.leads

    @property
    def run(self) -> Run | None:
        """The execution that it carries."""
        return None if self.process.dead else self.sim.coordinator.mover.run

    def _lead(self) -> None:
        self.sim.coordinator.lead(new_term=self.sim.leadership.tick())

    def _start(self, name: str, pump: Callable[[], object]) -> None:
        scheduler, process, failures = self._simulation.scheduler, self.process, 0

        def turn() -> None:
            nonlocal failures
            if process.dead:
                return
            more: object = False
            try:
                more = pump() if name == "move" else bool(pump()) and name == "fence"
                failures = 0
            except MrcError as error:
                if error.kind == "bug":
                    self._end(name, error)
                    return
                if not failures:
                    self._simulation.trace(self.name, f"{name} fails: {error}")
                failures = min(failures + 1, 4)
            except Exception as error:  # noqa: BLE001 - whatever it is, mrc is wrong: the agent ends, as the wiring has it
                self._end(name, error)
                return
            pause_s = 0.01 if more else PERIODS[name] * self._rng.uniform(0.6, 1.4) * (1 + failures / 2)
            scheduler.after(pause_s, turn, process)

        scheduler.after(self._rng.uniform(0.0, PERIODS[name]), turn, process)

    def _end(self, pump: str, error: Exception) -> None:
        said = str(error) if isinstance(error, MrcError) else "".join(traceback.format_exception(error))
        self._simulation.violate("AGENT_WRONG", f"{self.name}, {pump}: {said}")
        self.process.die()
        self._simulation.restart(self.name, 3.0)


class Simulation:
    """The world, its agents and applications, and what happens to them."""

    def __init__(self, seed: int, left_out: Collection[int] = (), tell: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self._left_out = tuple(sorted(left_out))
        self._tell = tell
        self._hash = hashlib.sha256()
        self._rng = random.Random(f"world {seed}")
        self.scheduler = Scheduler()
        self.world = World({"orders": 2, "payments": 1}, exactly_once=self._rng.random() < 0.5, clock=ScheduledClock(self.scheduler))
        write_first_record(self.world)
        self.observed = Observed()
        self.violations: list[Violation] = []
        self.counts: dict[str, int] = {}
        self.evidence = Evidence(self.world, self.observed)
        self._region_cut: dict[Region, int] = {EAST: 0, WEST: 0}
        self._open: set[tuple[str, int]] = set()
        self._chaos = True
        self._quiet = self._adopted = False
        self._operator = random.Random(f"operator {seed}")
        self._asked: dict[str, int] = {}
        self._watch_record()
        self.agents = {name: _Agent(self, name) for name in AGENTS}
        self._make_applications()
        self._plan_happenings()
        self._every(1.0, self._attend)
        self._every(0.5, self._watch_holes)

    # -- the run

    def run(self) -> Outcome:
        """See `run`."""
        self.scheduler.run(CHAOS_S)
        self._heal()
        wrong: list[Violation] = []
        until_s = CHAOS_S + REST_MAX_S
        while self.scheduler.now_s < until_s:
            self.scheduler.run(self.scheduler.now_s + LOOK_EVERY_S)
            if self._moving():
                continue
            if not self._quiet:
                self._quiet = True
                continue
            wrong = checkers.at_rest(self.evidence, list(self._consumers), self._now())
            if not wrong:
                break
        self._say("end", f"at {self.scheduler.now_s:.0f} s")
        self.violations += checkers.executions(self.evidence, self._waiting(), self._now())
        self.violations += wrong or checkers.at_rest(self.evidence, list(self._consumers), self._now())
        self.violations += checkers.order(self.evidence)
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
                self.agents[name] = _Agent(self, name)
                self._link(self.agents[name])

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
            made = Place(self.world, region, self.record, lambda at: bool(self._region_cut[at]))
            self._every(self._rng.uniform(0.1, 1.5), made.refresh)
            return made

        self._producers: list[Producer] = []
        for region in (EAST, WEST):
            self._producers += [
                Producer(f"{region}-app", place(region), self.observed, self._now, stubborn=False),
                Producer(f"{region}-stubborn", place(region), self.observed, self._now, stubborn=True),
            ]
        self._transactional = {p.place.region: p for p in self._producers if p.name.endswith("stubborn")}
        self._consumers = tuple(
            Consumer(GroupId(group), place(EAST if self._rng.random() < 0.5 else WEST), batch)
            for group, batch in (("billing", 40), ("shipping", 3))
        )
        self.evidence.groups = tuple(c.group for c in self._consumers)
        for producer in self._producers:
            self._work(f"produce {producer.name}", partial(self._write, producer), 0.6)
        for consumer in self._consumers:
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
        if any(self._region_cut.values()):
            return 0
        return self.world.replicators[flow.target].copy(connector(flow), rng.randint(2, 40), flush=rng.random() < 0.5)

    # -- operators

    def leader(self, region: Region) -> _Agent | None:
        """Return the agent that leads in a region, if one does."""
        return next((agent for agent in self.agents.values() if region_of(agent.name) == region and agent.leads), None)

    def _begin(self, kind: MoveKind, *, may_live: bool, tries: int = 6) -> None:
        """Start a move to the region that is not active, as an operator does; try again where nobody can be asked."""
        record = self.record()
        source = record.region if record.state != "closed" else _other(record.region)
        target = _other(source)
        if kind == "failover" and not may_live and self.world.clusters[source].reachable and not self._region_cut[source]:
            self._say("operator", f"no failover: {source} lives")
            return
        agent = self.leader(target)
        if agent is None:
            if tries:
                self.scheduler.after(1.0, lambda: self._begin(kind, may_live=may_live, tries=tries - 1))
            return

        def start() -> None:
            try:
                self._say("operator", f"{kind} to {target}: {self._start_move(agent, kind, source, target)}")
            except MrcError as error:
                if error.kind == "bug":
                    self.violate("AGENT_WRONG", f"{agent.name}, begin: {error}")
                self._say("operator", f"{kind} to {target}: {error.code}")

        self.scheduler.after(0.0, start, agent.process)

    def _start_move(self, agent: _Agent, kind: MoveKind, source: Region, target: Region) -> str:
        coordinator = agent.sim.coordinator
        seen = coordinator.observer.observe()
        against = [one.code for one in findings(seen, kind, target, attested=kind == "failover") if one.severity == "error"]
        if against:
            return f"refused, {', '.join(against)}"
        book, digest = _BOOKS[kind]
        number = self.counts.get("moves", 0)
        self.counts["moves"] = number + 1
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
            attested=kind == "failover",
            actor="operator",
            reason="",
        )
        coordinator.mover.begin(plan)
        return plan.id

    def _attend(self) -> None:
        """Answer what executions wait for, now and then; after the healing always, and at last end what cannot go on."""
        for agent in self.agents.values():
            run = agent.run
            if run is None or run.phase != "waiting" or not agent.leads or (self._chaos and self._operator.random() < 0.7):
                continue
            times = self._asked[run.plan.id] = self._asked.get(run.plan.id, 0) + 1
            patient = times <= 6 if not self._chaos else self._operator.random() < 0.7
            self._ask(agent, Approved("operator") if patient or not run.abortable else AbortAsked("operator"))

    def _ask(self, agent: _Agent, event: Approved | AbortAsked) -> None:
        def ask() -> None:
            try:
                agent.sim.coordinator.mover.ask(event)
                self._say("operator", type(event).__name__)
            except MrcError as error:
                self._say("operator", f"{type(event).__name__}: {error.code}")

        self.scheduler.after(0.0, ask, agent.process)

    def _moving(self) -> bool:
        current = self.world.ensemble.nodes.get(_CURRENT)
        return bool(current and current.data) or self.record().state != "open" or bool(self._open)

    def _waiting(self) -> str:
        """Return what the running execution says that it waits for, or how the step that it tries again has failed last."""
        runs = [run for agent in self.agents.values() if (run := agent.run) and run.phase not in ENDED]
        return "; ".join(run.waiting.message if run.waiting else run.evidence.get(run.step.name, "") for run in runs)

    # -- what happens

    def _plan_happenings(self) -> None:
        for index, one in enumerate(happenings(self.seed)):
            if index not in self._left_out:
                self.scheduler.at(one.at_s, partial(self._happen, one))

    def _happen(self, one: Happening) -> None:
        self._say("happens", str(one))
        self.counts[one.kind] = self.counts.get(one.kind, 0) + 1
        getattr(self, "_happen_" + one.kind.replace("-", "_"))(one)

    def _region(self, where: str) -> Region:
        return self.record().region if where == "active" else Region(where)

    def _agent(self, where: str) -> _Agent | None:
        if not where.startswith("leader-of"):
            return self.agents[where]
        active = self.record().region
        return self.leader(active if where.endswith("source") else _other(active))

    def _happen_switchover(self, one: Happening) -> None:
        self._begin("switchover", may_live=True)

    def _happen_failover(self, one: Happening) -> None:
        self._begin("failover", may_live=one.flag)

    def _happen_abort(self, one: Happening) -> None:
        for agent in self.agents.values():
            if agent.leads and agent.run is not None and agent.run.abortable:
                self._ask(agent, AbortAsked("operator"))

    def _happen_crash(self, one: Happening) -> None:
        self._stop(self._agent(one.where), one, 0.0)

    def _happen_pause(self, one: Happening) -> None:
        self._stop(self._agent(one.where), one, one.for_s)

    def _stop(self, agent: _Agent | None, one: Happening, pause_s: float) -> None:
        if agent is None or agent.process.dead:
            return
        agent.process.fates.append(Fate(one.calls, one.flag, one.after, pause_s))
        if not pause_s:
            self._watch_death(agent.name, one.for_s)

    def _watch_death(self, name: str, for_s: float) -> None:
        """Start the agent anew some time after it has died."""
        agent = self.agents[name]

        def look() -> None:
            if agent.process.dead:
                if self.agents[name] is agent:
                    self.restart(name, for_s)
            elif self._chaos:
                self.scheduler.after(0.5, look)

        self.scheduler.after(0.5, look)

    def _happen_crash_pair(self, one: Happening) -> None:
        for agent in self.agents.values():
            if region_of(agent.name) == one.where and not agent.process.dead:
                agent.process.die()
                self.restart(agent.name, one.for_s)

    def _happen_lose_replies(self, one: Happening) -> None:
        agent = self._agent(one.where)
        if agent is not None:
            agent.sim.tree.replies_to_lose = one.calls

    def _happen_no_quorum(self, one: Happening) -> None:
        self.world.ensemble.quorum = False

        def back() -> None:
            self.world.ensemble.quorum = True

        self.scheduler.after(one.for_s, back)

    def _happen_agent_cut(self, one: Happening) -> None:
        name, _, region = one.where.partition("/")
        kinds = ("kafka", "connect") if one.flag else ("kafka",)
        agent = self.agents[name]
        agent.process.cut |= {(kind, Region(region)) for kind in kinds}
        self.scheduler.after(one.for_s, lambda: agent.process.cut.difference_update({(kind, Region(region)) for kind in kinds}))

    def _happen_agent_off(self, one: Happening) -> None:
        agent = self._agent(one.where)
        if agent is not None:
            self._set_off(agent, off=True)
            self.scheduler.after(one.for_s, lambda: self._set_off(agent, off=False))

    def _set_off(self, agent: _Agent, *, off: bool) -> None:
        agent.process.off = off
        agent.process.reach_zookeeper()

    def _happen_region_cut(self, one: Happening) -> None:
        region = self._region(one.where)
        self._region_cut[region] += 1
        self._link_all()

        def back() -> None:
            self._region_cut[region] = max(0, self._region_cut[region] - 1)
            self._link_all()

        self.scheduler.after(one.for_s, back)

    def _link_all(self) -> None:
        for agent in self.agents.values():
            self._link(agent)

    def _link(self, agent: _Agent) -> None:
        """Let an agent's links be as its region's partition has them."""
        here = region_of(agent.name)
        cut = bool(self._region_cut[here]) or bool(self._region_cut[_other(here)])
        across = {("kafka", _other(here)), ("connect", _other(here))}
        agent.process.cut = agent.process.cut | across if cut else agent.process.cut - across
        self._set_off(agent, off=bool(self._region_cut[here]))

    def _happen_region_kill(self, one: Happening) -> None:
        region = self._region(one.where)
        if not self.world.clusters[region].reachable:
            return
        self.world.lose(region)
        for consumer in self._consumers:
            consumer.gone(region)
        for group in self.world.clusters[region].members_of.values():
            group.members = 0
        for agent in self.agents.values():
            if region_of(agent.name) == region and not agent.process.dead:
                agent.process.die()
                self.restart(agent.name, one.for_s + self._rng.uniform(-1.0, 3.0))
        self.scheduler.after(one.for_s, lambda: self._return(region, truncated=one.flag))

    def _return(self, region: Region, *, truncated: bool) -> None:
        if self.world.clusters[region].reachable:
            return
        self._say("world", f"{region} returns")
        self.world.regain(region)
        for connector_ in self.world.replicators[region].connectors.values():
            connector_.held = dict(connector_.stored)
        if truncated and any(ledger["region"] == region and ledger["state"] == "open" for ledger in self.evidence.ledgers()):
            self._truncate(region)  # a mirror that loses copies is another matter: nothing was promised of it

    def _truncate(self, region: Region) -> None:
        cluster, other = self.world.clusters[region], self.world.clusters[_other(region)]
        there = {value for tp in self.world.tps() for value in checkers.values(other.contents[tp.topic].logs[tp.partition])}
        self.evidence.truncated.add(region)
        for tp in self.world.tps():
            log = cluster.log(tp)
            end = max(log.start, log.end - self._rng.randint(0, 5))
            lost = {entry.record.value for entry in log.entries if entry.offset >= end and entry.record is not None and entry.record.value}
            self.evidence.destroyed |= lost - there
            log.cut(end)

    def _happen_connect_down(self, one: Happening) -> None:
        replicator = self.world.replicators[self._region(one.where)]
        replicator.reachable = False

        def back() -> None:
            replicator.reachable = replicator.target.reachable

        self.scheduler.after(one.for_s, back)

    def _happen_mm2_restart(self, one: Happening) -> None:
        for flow in self.world.flows:
            if self.world.replicators[flow.target].reachable:
                self.world.replicators[flow.target].crash(connector(flow))

    def _happen_slow_stop(self, one: Happening) -> None:
        replicator = self.world.replicators[self._region(one.where)]
        replicator.stop_takes_s = one.for_s

        def back() -> None:
            replicator.stop_takes_s = 0.0

        self.scheduler.after(12.0, back)

    def _happen_clock_jump(self, one: Happening) -> None:
        agent = self._agent(one.where)
        if agent is not None:
            agent.clock.ahead_ms += one.calls

    def _happen_transaction(self, one: Happening) -> None:
        producer = self._transactional[self._region(one.where)]
        transaction = producer.begin(2, self._rng)
        if not transaction:
            return
        key = (producer.name, transaction)
        self._open.add(key)

        def end() -> None:
            if producer.end(transaction, commit=not one.flag):
                self._open.discard(key)
                self._say(producer.name, f"transaction {transaction} ends")
            else:
                self.scheduler.after(1.0, end)

        self.scheduler.after(one.for_s, end)

    def _happen_acls_late(self, one: Happening) -> None:
        region = self._region(one.where)
        self.world.clusters[region].late_s[one.calls] = one.for_s
        self.scheduler.after(15.0, partial(self._in_time, region, one.calls))

    def _in_time(self, region: Region, broker: int) -> None:
        self.world.clusters[region].late_s.pop(broker, None)

    def _happen_fence_removed(self, one: Happening) -> None:
        """Somebody's tool removes what it does not know."""
        region = self._region(one.where)
        cluster = self.world.clusters[region]
        if cluster.reachable:
            cluster.remove_bindings({binding for binding in cluster.acls.bindings if binding.permission == "deny"})
            self.hole(region)

    def _happen_group_idle(self, one: Happening) -> None:
        consumer = next(c for c in self._consumers if c.group == one.where)
        consumer.idle = True

        def back() -> None:
            consumer.idle = False

        self.scheduler.after(one.for_s, back)

    def _happen_group_stays(self, one: Happening) -> None:
        consumer = next(c for c in self._consumers if c.group == one.where)
        consumer.stays = True

        def back() -> None:
            consumer.stays = False

        self.scheduler.after(one.for_s, back)

    def _happen_trim(self, one: Happening) -> None:
        """Retention takes the beginning of the standby's logs, which nobody reads now."""
        standby = _other(self.record().region)
        if self._moving() or not self.world.clusters[standby].reachable:
            return
        for tp in self.world.tps():
            log = self.world.clusters[standby].log(tp)
            start = self._rng.randint(log.start, max(log.start, log.end - 3))
            self.evidence.trimmed |= {e.record.value for e in log.entries if e.offset < start and e.record is not None and e.record.value}
            log.trim(start)

    def hole(self, region: Region) -> None:
        """Note that a fence is open through nobody's fault but the world's, until it stands again."""
        self.evidence.holes.append([region, self.observed.order(), None])

    def _watch_holes(self) -> None:
        for hole in self.evidence.holes:
            if hole[2] is None and not checkers.missing_denies(self.world, hole[0]):
                hole[2] = self.observed.order()

    # -- afterwards

    def _heal(self) -> None:
        self._say("world", "is healed")
        self._chaos = False
        self.world.ensemble.quorum = True
        self._region_cut = {EAST: 0, WEST: 0}
        for region, cluster in self.world.clusters.items():
            cluster.catch_up()
            self._return(region, truncated=False)
            self.world.replicators[region].reachable = True
            self.world.replicators[region].stop_takes_s = 0.0
        for consumer in self._consumers:
            consumer.idle = consumer.stays = False
            consumer.batch = 200
        for producer in self._producers:
            producer.place.refresh()
        for name, agent in self.agents.items():
            agent.process.fates.clear()
            agent.process.cut.clear()
            self._set_off(agent, off=False)
            if agent.process.dead:
                self.restart(name, 0.1)


def _other(region: Region) -> Region:
    return WEST if region == EAST else EAST
