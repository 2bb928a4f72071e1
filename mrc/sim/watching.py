"""Judges that look while a run goes on: of a region whose agents hear no majority, and of a fence that nobody has ended yet.

As those of `mrc.sim.checkers` they import nothing that they judge: they know when ZooKeeper answered whom, what clients were told, the
journals as JSON, and what operators have asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mrc.core.model import Region
from mrc.sim.checkers import Violation, some
from mrc.sim.faults import region_of
from mrc.sim.incarnation import Incarnation
from mrc.sim.links import GAP_S
from mrc.sim.workload import Ack
from mrc.sim.world import EAST, WEST

if TYPE_CHECKING:
    from mrc.sim.run import Simulation

STANDS_WITHIN_S = 10.0
"""So long after the deadline writes are refused at the latest, as the documents have it."""

KNOWS_AFTER_S = 5.0
"""Whom ZooKeeper has answered for so long has read whatever it reads regularly."""


class Silences:
    """Whether a region in which no agent hears a majority refuses writes in time, where that is wanted.

    That is asked of a region only while one of its agents lives, is not paused, reaches its own Kafka, and knew when it heard a majority
    last that the region was the active one. Whatever somebody else takes away is set again only after the deadline has passed anew.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._able_since_s: dict[tuple[str, int], float] = {}
        self._answered_s: dict[Region, float] = {EAST: float("-inf"), WEST: float("-inf")}
        self._late_until_s: dict[Region, float] = {EAST: 0.0, WEST: 0.0}
        self._judged = 0

    def look(self) -> None:
        """Judge what was acknowledged since the last look."""
        acks = self._simulation.observed.acks[self._judged :]
        self._judged += len(acks)
        after_s = self._simulation.world.self_fence_after_s
        if after_s is None:
            return
        for region in (EAST, WEST):
            since_s = self._since_s(region)
            late = [] if since_s is None else [a for a in acks if a.region == region and a.at_s > since_s + after_s + STANDS_WITHIN_S]
            if late := [a for a in late if not self._simulation.evidence.in_hole(a)]:
                self._simulation.violate(
                    "NOT_SELF_FENCED", f"no majority was heard in {region} since {since_s:.1f} s, and it acknowledged {_told(late)}"
                )

    def _since_s(self, region: Region) -> float | None:
        """Return since when an agent must have counted the time; None where none is asked to."""
        simulation = self._simulation
        now_s = simulation.scheduler.now_s
        here = [agent for agent in simulation.agents.values() if region_of(agent.name) == region]
        self._answered_s[region] = max(self._answered_s[region], *(agent.process.answered_s for agent in here))
        if not simulation.world.clusters[region].up_to_date():
            self._late_until_s[region] = now_s
        able_s = [since_s for agent in here if (since_s := self._able_s(agent)) is not None]
        if not able_s:
            return None
        taken_away_s = simulation.evidence.opened_s.get(region, 0.0)
        return max(min(able_s), self._answered_s[region], self._late_until_s[region], taken_away_s)

    def _able_s(self, agent: Incarnation) -> float | None:
        """Return since when an agent could have fenced its region, as far as it depends on the agent; None where it cannot."""
        key, region, now_s = (agent.name, id(agent)), region_of(agent.name), self._simulation.scheduler.now_s
        process = agent.process
        runs = not process.dead and process.paused_until_s <= now_s
        if not runs or ("kafka", region) in process.cut or not self._simulation.world.clusters[region].reachable:
            self._able_since_s.pop(key, None)
            return None
        since_s = self._able_since_s.setdefault(key, now_s)
        return since_s if self._knows(process.hears_since_s, process.answered_s, region) else None

    def _knows(self, since_s: float, until_s: float, region: Region) -> bool:
        """Whether an agent that was answered in this time has learnt that the region is the active one, and nothing else since."""
        begin_s = until_s - KNOWS_AFTER_S
        if until_s < 0 or since_s > begin_s:  # never answered, or not for long enough
            return False
        openings = self._simulation.evidence.openings
        last = max(index for index, one in enumerate(openings) if one.at_s < begin_s or not index)
        return all(one.region == region for one in openings[last:] if one.at_s <= until_s + GAP_S)


class Fences:
    """Whether a fence, once it was proved, lets nothing through until a person has asked for its end."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._proved: dict[str, int] = {}

    def look(self) -> None:
        """Note which fences are proved by now."""
        evidence = self._simulation.evidence
        for path in evidence.below(f"{evidence.root}/executions"):
            if (execution := path.rpartition("/")[2]) in self._proved or evidence.json(path)["kind"] != "fence":
                continue
            names = {step["name"] for step in evidence.json(path)["steps"] if step["action"] == "fence-source"}
            events = [evidence.json(entry)["event"] for entry in evidence.below(f"{path}/entries")]
            if any(event["type"] == "verified" and event["step"] in names for event in events):
                self._proved[execution] = self._simulation.observed.order()

    def violations(self) -> Iterator[Violation]:
        """Judge every fence of the run."""
        evidence = self._simulation.evidence
        for path in evidence.below(f"{evidence.root}/executions"):
            plan = evidence.json(path)
            if plan["kind"] != "fence":
                continue
            ended = evidence.fences_ended.get(plan["id"], float("inf"))
            opened = [one for one in evidence.openings if (one.execution, one.state) == (plan["id"], "open") and one.order < ended]
            if opened:
                yield Violation("FENCE_LEFT", f"fence {plan['id']} was ended and nobody has asked for it", opened[0].at_s)
            proved = self._proved.get(plan["id"], float("inf"))
            through = [a for a in evidence.observed.acks if a.region == plan["source"] and proved < a.order < ended]
            if through := [a for a in through if not evidence.in_hole(a)]:
                yield Violation(
                    "FENCE_LEFT", f"{plan['source']} acknowledged behind the fence {plan['id']}: {_told(through)}", through[0].at_s
                )


def _told(acks: list[Ack]) -> str:
    return some([f"{a.value.decode()} at {a.at_s:.2f} s" for a in acks])
