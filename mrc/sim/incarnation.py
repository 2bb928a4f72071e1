"""One incarnation of an agent: its process, its clock, and the production pumps, each with a turn of its own."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mrc.core.errors import MrcError
from mrc.core.failover.execution import Run
from mrc.sim.agents import SimAgent
from mrc.sim.faults import region_of
from mrc.sim.links import AgentProcess
from mrc.sim.scheduling import ScheduledClock

if TYPE_CHECKING:
    from mrc.sim.run import Simulation

PERIODS = {"lead": 0.8, "observe": 4.0, "fence": 1.0, "quorum": 1.0, "flow": 1.2, "capture": 0.6, "sync": 2.0, "archive": 2.0, "move": 0.3}
"""Seconds between two turns of an agent's pumps, about."""


class Incarnation:
    """An agent from its start to its end.

    Attributes:
        process: the process that it is.
        clock: its own.
        sim: the production coordinator and what it is wired to.
    """

    def __init__(self, simulation: Simulation, name: str) -> None:
        self._simulation = simulation
        self.name = name
        scheduler = simulation.scheduler
        self.process = AgentProcess(name, scheduler, simulation.trace, simulation.mischief.hole)
        self._rng = random.Random(f"{simulation.seed} {name} {scheduler.now_s}")
        self.clock = ScheduledClock(scheduler, self.process, grain_s=self._rng.choice((0.1, 0.25, 0.5)))
        self.sim = SimAgent(
            simulation.world,
            region_of(name),
            name,
            clock=self.clock,
            wire=self.process.wire,
            led_beside=partial(simulation.led_beside, name),
        )
        self.process.tree = self.sim.tree
        coordinator = self.sim.coordinator
        self._start("lead", self._lead)
        for region in coordinator.estate.unit.regions:
            self._start("observe", partial(coordinator.observer.refresh, region))
            self._start("fence", partial(coordinator.fence_tick, region))
        if coordinator.estate.unit.self_fence_after_s is not None:
            self._start("quorum", coordinator.quorum_tick)
        self._start("flow", coordinator.flow_tick)
        self._start("capture", coordinator.capture_tick)
        self._start("sync", coordinator.sync_tick)
        self._start("archive", coordinator.archive_tick)
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
