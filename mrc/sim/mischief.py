"""Carries out what happens: each kind of `mrc.sim.faults` on the world, and its end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mrc.core.failover.execution import AbortAsked
from mrc.core.model import Region
from mrc.sim import checkers
from mrc.sim.faults import Happening, region_of
from mrc.sim.incarnation import Incarnation
from mrc.sim.links import Fate
from mrc.sim.world import EAST, WEST, connector, other

if TYPE_CHECKING:
    from mrc.sim.run import Simulation

_SLOW_S = 12.0
"""How long a Connect cluster is slow to stop."""

_LATE_S = 15.0
"""How long changes of ACLs reach a broker late."""


class Mischief:
    """What is wrong with the world at present.

    Attributes:
        open: transactions that applications have open.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._cuts: dict[Region, int] = {EAST: 0, WEST: 0}
        self.open: set[tuple[str, int]] = set()

    def cut(self, region: Region) -> bool:
        """Whether a region is cut off from the other one and from ZooKeeper."""
        return bool(self._cuts[region])

    def happen(self, one: Happening) -> None:
        """Let it happen."""
        self._simulation.trace("happens", str(one))
        self._simulation.counts[one.kind] = self._simulation.counts.get(one.kind, 0) + 1
        getattr(self, "_" + one.kind.replace("-", "_"))(one)

    def _region(self, where: str) -> Region:
        return self._simulation.record().region if where == "active" else Region(where)

    def _agent(self, where: str) -> Incarnation | None:
        if not where.startswith("leader-of"):
            return self._simulation.agents[where]
        active = self._simulation.record().region
        return self._simulation.leader(active if where.endswith("source") else other(active))

    def _switchover(self, one: Happening) -> None:
        self._simulation.operators.begin("switchover", may_live=True)

    def _failover(self, one: Happening) -> None:
        self._simulation.operators.begin("failover", may_live=one.flag, attested=not one.after)

    def _fence(self, one: Happening) -> None:
        self._simulation.operators.begin("fence", may_live=True)

    def _abort(self, one: Happening) -> None:
        for agent in self._simulation.agents.values():
            if agent.leads and agent.run is not None and agent.run.abortable:
                self._simulation.operators.ask(agent, AbortAsked("operator"))

    def _crash(self, one: Happening) -> None:
        self._stop(self._agent(one.where), one, 0.0)

    def _pause(self, one: Happening) -> None:
        self._stop(self._agent(one.where), one, one.for_s)

    def _stop(self, agent: Incarnation | None, one: Happening, pause_s: float) -> None:
        if agent is None or agent.process.dead:
            return
        agent.process.fates.append(Fate(one.calls, one.flag, one.after, pause_s))
        if not pause_s:
            self._watch_death(agent.name, one.for_s)

    def _watch_death(self, name: str, for_s: float) -> None:
        """Start the agent anew some time after it has died."""
        agent = self._simulation.agents[name]

        def look() -> None:
            if agent.process.dead:
                if self._simulation.agents[name] is agent:
                    self._simulation.restart(name, for_s)
            elif self._simulation.chaos:
                self._simulation.scheduler.after(0.5, look)

        self._simulation.scheduler.after(0.5, look)

    def _crash_pair(self, one: Happening) -> None:
        for agent in self._simulation.agents.values():
            if region_of(agent.name) == one.where and not agent.process.dead:
                agent.process.die()
                self._simulation.restart(agent.name, one.for_s)

    def _lose_replies(self, one: Happening) -> None:
        agent = self._agent(one.where)
        if agent is not None:
            agent.sim.tree.replies_to_lose = one.calls

    def _no_quorum(self, one: Happening) -> None:
        self._simulation.world.ensemble.quorum = False

        def back() -> None:
            self._simulation.world.ensemble.quorum = True

        self._simulation.scheduler.after(one.for_s, back)

    def _agent_cut(self, one: Happening) -> None:
        name, _, region = one.where.partition("/")
        kinds = ("kafka", "connect") if one.flag else ("kafka",)
        agent = self._simulation.agents[name]
        agent.process.cut |= {(kind, Region(region)) for kind in kinds}
        self._simulation.scheduler.after(one.for_s, lambda: agent.process.cut.difference_update({(kind, Region(region)) for kind in kinds}))

    def _agent_off(self, one: Happening) -> None:
        agent = self._agent(one.where)
        if agent is not None:
            self._set_off(agent, off=True)
            self._simulation.scheduler.after(one.for_s, lambda: self._set_off(agent, off=False))

    def _set_off(self, agent: Incarnation, *, off: bool) -> None:
        agent.process.off = off
        agent.process.reach_zookeeper()

    def _region_cut(self, one: Happening) -> None:
        region = self._region(one.where)
        self._cuts[region] += 1
        self._link_all()

        def back() -> None:
            self._cuts[region] = max(0, self._cuts[region] - 1)
            self._link_all()

        self._simulation.scheduler.after(one.for_s, back)

    def _link_all(self) -> None:
        for agent in self._simulation.agents.values():
            self.link(agent)

    def link(self, agent: Incarnation) -> None:
        """Let an agent's links be as its region's partition has them."""
        here = region_of(agent.name)
        cut = bool(self._cuts[here]) or bool(self._cuts[other(here)])
        across = {("kafka", other(here)), ("connect", other(here))}
        agent.process.cut = agent.process.cut | across if cut else agent.process.cut - across
        self._set_off(agent, off=bool(self._cuts[here]))

    def _region_kill(self, one: Happening) -> None:
        region = self._region(one.where)
        if not self._simulation.world.clusters[region].reachable:
            return
        self._simulation.world.lose(region)
        for consumer in self._simulation.consumers:
            consumer.gone(region)
        for group in self._simulation.world.clusters[region].members_of.values():
            group.members = 0
        for agent in self._simulation.agents.values():
            if region_of(agent.name) == region and not agent.process.dead:
                agent.process.die()
                self._simulation.restart(agent.name, one.for_s + self._simulation.rng.uniform(-1.0, 3.0))
        self._simulation.scheduler.after(one.for_s, lambda: self._return(region, truncated=one.flag))

    def _return(self, region: Region, *, truncated: bool) -> None:
        if self._simulation.world.clusters[region].reachable:
            return
        self._simulation.trace("world", f"{region} returns")
        self._simulation.world.regain(region)
        for connector_ in self._simulation.world.replicators[region].connectors.values():
            connector_.held = dict(connector_.stored)
        if truncated and any(ledger["region"] == region and ledger["state"] == "open" for ledger in self._simulation.evidence.ledgers()):
            self._truncate(region)  # a mirror that loses copies is another matter: nothing was promised of it

    def _truncate(self, region: Region) -> None:
        cluster, mirror = self._simulation.world.clusters[region], self._simulation.world.clusters[other(region)]
        copies = [self._simulation.world.mirror(region, tp) for tp in self._simulation.world.tps()]
        there = {value for tp in copies for value in checkers.values(mirror.contents[tp.topic].logs[tp.partition])}
        self._simulation.evidence.truncated.add(region)
        for tp in self._simulation.world.tps():
            log = cluster.log(tp)
            end = max(log.start, log.end - self._simulation.rng.randint(0, 5))
            lost = {entry.record.value for entry in log.entries if entry.offset >= end and entry.record is not None and entry.record.value}
            self._simulation.evidence.destroyed |= lost - there
            log.cut(end)

    def _connect_down(self, one: Happening) -> None:
        replicator = self._simulation.world.replicators[self._region(one.where)]
        replicator.reachable = False

        def back() -> None:
            replicator.reachable = replicator.target.reachable

        self._simulation.scheduler.after(one.for_s, back)

    def _mm2_restart(self, one: Happening) -> None:
        for flow in self._simulation.world.flows:
            if self._simulation.world.replicators[flow.target].reachable:
                self._simulation.world.replicators[flow.target].crash(connector(flow))

    def _slow_stop(self, one: Happening) -> None:
        replicator = self._simulation.world.replicators[self._region(one.where)]
        replicator.stop_takes_s = one.for_s

        def back() -> None:
            replicator.stop_takes_s = 0.0

        self._simulation.scheduler.after(_SLOW_S, back)

    def _clock_jump(self, one: Happening) -> None:
        agent = self._agent(one.where)
        if agent is not None:
            agent.clock.ahead_ms += one.calls

    def _transaction(self, one: Happening) -> None:
        producer = self._simulation.transactional[self._region(one.where)]
        transaction = producer.begin(2, self._simulation.rng)
        if not transaction:
            return
        key = (producer.name, transaction)
        self.open.add(key)

        def end() -> None:
            if producer.end(transaction, commit=not one.flag):
                self.open.discard(key)
                self._simulation.trace(producer.name, f"transaction {transaction} ends")
            else:
                self._simulation.scheduler.after(1.0, end)

        self._simulation.scheduler.after(one.for_s, end)

    def _acls_late(self, one: Happening) -> None:
        region = self._region(one.where)
        self._simulation.world.clusters[region].late_s[one.calls] = one.for_s
        self._simulation.scheduler.after(_LATE_S, partial(self._in_time, region, one.calls))

    def _in_time(self, region: Region, broker: int) -> None:
        self._simulation.world.clusters[region].late_s.pop(broker, None)

    def _fence_removed(self, one: Happening) -> None:
        """Somebody's tool removes what it does not know."""
        region = self._region(one.where)
        cluster = self._simulation.world.clusters[region]
        denies = {binding for binding in cluster.acls.bindings if binding.permission == "deny"}
        if cluster.reachable and denies:
            cluster.remove_bindings(denies)
            self.hole(region)

    def _group_idle(self, one: Happening) -> None:
        consumer = next(c for c in self._simulation.consumers if c.group == one.where)
        consumer.idle = True

        def back() -> None:
            consumer.idle = False

        self._simulation.scheduler.after(one.for_s, back)

    def _group_stays(self, one: Happening) -> None:
        consumer = next(c for c in self._simulation.consumers if c.group == one.where)
        consumer.stays = True

        def back() -> None:
            consumer.stays = False

        self._simulation.scheduler.after(one.for_s, back)

    def _trim(self, one: Happening) -> None:
        """Retention takes the beginning of the standby's logs, which nobody reads now."""
        standby = other(self._simulation.record().region)
        if self._simulation.moving() or not self._simulation.world.clusters[standby].reachable:
            return
        for tp in self._simulation.world.read_tps(standby):
            log = self._simulation.world.clusters[standby].log(tp)
            start = self._simulation.rng.randint(log.start, max(log.start, log.end - 3))
            self._simulation.evidence.trimmed |= {
                e.record.value for e in log.entries if e.offset < start and e.record is not None and e.record.value
            }
            log.trim(start)

    def hole(self, region: Region) -> None:
        """Note that a fence is open through nobody's fault but the world's, until it stands again."""
        self._simulation.evidence.holes.append([region, self._simulation.observed.order(), None])
        self._simulation.evidence.opened_s[region] = self._simulation.scheduler.now_s

    def watch_holes(self) -> None:
        """Note which of them are closed by now."""
        for hole in self._simulation.evidence.holes:
            world, record = self._simulation.world, self._simulation.record()
            free = (record.region, record.state) == (hole[0], "open")
            fenced = not checkers.missing_denies(world, hole[0]) and world.clusters[hole[0]].up_to_date()
            if hole[2] is None and (free or fenced):
                hole[2] = self._simulation.observed.order()

    def heal(self) -> None:
        """End everything that is wrong."""
        self._simulation.trace("world", "is healed")
        self._simulation.chaos = False
        self._simulation.world.ensemble.quorum = True
        self._cuts = {EAST: 0, WEST: 0}
        for region, cluster in self._simulation.world.clusters.items():
            cluster.catch_up()
            self._return(region, truncated=False)
            self._simulation.world.replicators[region].reachable = True
            self._simulation.world.replicators[region].stop_takes_s = 0.0
        for consumer in self._simulation.consumers:
            consumer.idle = consumer.stays = False
            consumer.batch = 200
        for producer in self._simulation.producers:
            producer.place.refresh()
        for name, agent in self._simulation.agents.items():
            agent.process.fates.clear()
            agent.process.cut.clear()
            self._set_off(agent, off=False)
            if agent.process.dead:
                self._simulation.restart(name, 0.1)
