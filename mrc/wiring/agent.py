"""Runs one agent: its threads, its servers, its end.

Threads only call pumps. A pump that raises a world error is called again after a pause that grows to `PAUSE_MAX_S`; one that
raises a bug ends the agent with a trace, and the pair's other agent takes over.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog

from mrc import __version__
from mrc.agent.coordinator import Coordinator
from mrc.agent.leadership import AgentNode
from mrc.agent.service import AgentService
from mrc.config.settings import AgentSettings, Settings
from mrc.control.server import Server
from mrc.core.errors import MrcError
from mrc.core.failover.measured import EVERY_MS
from mrc.core.failover.runbook import Runbook
from mrc.core.model import Region
from mrc.ports import RENEW_EVERY_S
from mrc.telemetry.logs import configure_logs
from mrc.telemetry.metrics import serve_metrics
from mrc.wiring.conflicts import AgentDockets
from mrc.wiring.estates import Reach, reach, runbook

OBSERVE_EVERY_S = 2.0
GROUPS_EVERY_S = 10.0
RECONCILE_EVERY_S = 1.0
SYNC_EVERY_S = 1.0
ROUTE_EVERY_S = 5.0
ARCHIVE_EVERY_S = 2.0
RECORD_EVERY_S = EVERY_MS / 1000
IDLE_S = 0.05
PAUSE_MAX_S = 5.0
STOP_S = 5.0
"""How long an agent that ends waits for its threads; longer than any one call that acts on the world (`CALL_DEADLINE_S`)."""

Pump = Callable[[], bool]
"""Does a piece of work; returns whether there may be more at once."""


class Agent:
    """One agent's threads."""

    def __init__(self, settings: Settings, region: Region, me: AgentSettings) -> None:
        self._log = structlog.get_logger().bind(region=region, agent=me.id)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wakes: list[threading.Event] = []
        self._flowed: dict[str, str] = {}
        self.failed = False
        self._settings = settings
        self.reach: Reach = reach(settings, region, me, __version__)
        self.coordinators = {name: Coordinator(estate, me.id) for name, estate in self.reach.estates.items()}
        self.service = AgentService(
            AgentNode(me.id, me.grpc, __version__),
            region,
            self.reach.leadership,
            self.reach.peers,
            self.coordinators,
            self._runbook,
        )

    def start(self) -> None:
        """Start the threads."""
        self._thread("lead", self._lead, RENEW_EVERY_S)
        for name, coordinator in self.coordinators.items():
            wake = self._wake_on_record(name, coordinator)
            for region in coordinator.estate.unit.regions:
                self._thread(f"observe {name} {region}", partial(_refresh, coordinator, region), OBSERVE_EVERY_S)
                self._thread(f"fence {name} {region}", partial(coordinator.fence_tick, region), RECONCILE_EVERY_S, wake())
            if coordinator.estate.unit.self_fence_after_s is not None:
                self._thread(f"quorum {name}", partial(self._quorum, coordinator), RECONCILE_EVERY_S)
            self._thread(f"flow {name}", partial(self._flow, coordinator), RECONCILE_EVERY_S, wake())
            if coordinator.estate.routes:
                self._thread(f"route {name}", partial(self._route, coordinator), ROUTE_EVERY_S, wake())
            self._thread(f"capture {name}", coordinator.capture_tick, IDLE_S)
            self._thread(f"sync {name}", coordinator.sync_tick, SYNC_EVERY_S)
            self._thread(f"archive {name}", coordinator.archive_tick, ARCHIVE_EVERY_S)
            self._thread(f"record {name}", partial(_record, coordinator), RECORD_EVERY_S)
            self._thread(f"move {name}", coordinator.move_tick, IDLE_S)

    def stop(self) -> None:
        """End the threads between two pieces of work, then leave ZooKeeper, so that the other agent leads at once.

        A thread that waits for a cluster for longer than ``STOP_S`` is left behind: without the lease it begins nothing more.
        """
        self._stop.set()
        for wake in self._wakes:
            wake.set()
        until_s = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, until_s - time.monotonic()))
        for coordinator in self.coordinators.values():
            coordinator.capture.close()
        self.reach.close()

    def _runbook(self, replication_group: str, kind: str) -> tuple[Runbook, str]:
        """Return the runbook of a kind of move as it is now: without the steps that what was seen last makes needless."""
        book, digest = runbook(self._settings, replication_group, kind)
        return self.coordinators[replication_group].as_seen(book), digest

    def _wake_on_record(self, name: str, coordinator: Coordinator) -> Callable[[], threading.Event]:
        """Return a maker of events that are set whenever the active-region record changes."""
        events: list[threading.Event] = []

        def notify() -> None:
            for event in events:
                event.set()

        def make() -> threading.Event:
            event = threading.Event()
            events.append(event)
            self._wakes.append(event)
            return event

        self.reach.tree.watch(coordinator.estate.store.record_path, notify)
        return make

    def _lead(self) -> bool:
        new_term = self.reach.leadership.tick()
        if new_term:
            self._log.info("leads", term=self.reach.leadership.term)
        for coordinator in self.coordinators.values():
            coordinator.lead(new_term=new_term)
        return False

    def _flow(self, coordinator: Coordinator) -> bool:
        done, name = coordinator.flow_tick(), coordinator.estate.unit.name
        # Connect may call a flow stopped for a while after it was let run: the same is neither said again nor done again at once.
        news = bool(done) and done != self._flowed.get(name)
        self._flowed[name] = done
        if news:
            self._log.info("flow", did=done)
        return news

    def _route(self, coordinator: Coordinator) -> bool:
        for name in coordinator.route_tick():
            self._log.info("route", set=name, group=coordinator.estate.unit.name)
        return False

    def _quorum(self, coordinator: Coordinator) -> bool:
        if coordinator.quorum_tick():
            self._log.warning("no ZooKeeper majority: refuses writes in this region", group=coordinator.estate.unit.name)
        return False

    def _thread(self, name: str, pump: Pump, every_s: float, wake: threading.Event | None = None) -> None:
        event = wake or threading.Event()
        if wake is None:
            self._wakes.append(event)
        thread = threading.Thread(target=self._loop, args=(name, pump, every_s, event), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _loop(self, name: str, pump: Pump, every_s: float, wake: threading.Event) -> None:
        failures = 0
        last = ""
        while not self._stop.is_set():
            try:
                more = pump()
                if failures:
                    self._log.info("goes on", pump=name, failures=failures)
                failures, last = 0, ""
            except MrcError as error:
                if error.kind == "bug":
                    self._die(name)
                    return
                failures += 1
                if str(error) != last:  # the same failure is said once, not with every try
                    self._log.warning("failed", pump=name, code=error.code, error=error.message, where=error.where)
                last = str(error)
                more = False
            except Exception:  # noqa: BLE001 - whatever it is, mrc is wrong: the trace is logged and the agent ends
                self._die(name)
                return
            if more:
                continue
            wake.wait(min(PAUSE_MAX_S, every_s * (failures + 1)))
            wake.clear()

    def _die(self, name: str) -> None:
        self._log.exception("mrc is wrong: this agent ends, the pair's other one takes over", pump=name)
        self.failed = True
        self._stop.set()


def _record(coordinator: Coordinator) -> bool:
    coordinator.record_tick()
    return False


def _refresh(coordinator: Coordinator, region: Region) -> bool:
    coordinator.observer.refresh(region, groups_age_max_s=GROUPS_EVERY_S)
    return False


def run(settings: Settings, region: str, agent_id: str | None) -> int:
    """Run an agent until SIGTERM or SIGINT; return the process's exit code.

    Args:
        agent_id: one of the region's agents in the configuration; None is allowed where there is one only.

    Raises:
        MrcError: ``UNKNOWN_REGION``, ``CONFIG_INVALID``.
    """
    agents = settings.region(region).agents
    found = [one for one in agents if agent_id in (None, one.id)]
    if len(found) != 1:
        raise MrcError("CONFIG_INVALID", f"name one of the agents of {region} with --agent: {', '.join(a.id for a in agents)}")
    configure_logs()
    log = structlog.get_logger().bind(region=region, agent=found[0].id)
    me = found[0]
    agent = Agent(settings, Region(region), me)
    server = Server(agent.service, AgentDockets(settings, Region(region)), me.grpc, settings.grpc.tls)
    metrics = serve_metrics(me.metrics, lambda: [agent.service.status(name) for name in agent.coordinators], me.id)
    ended = threading.Event()

    def end(signum: int, frame: object) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    # Maps and checkpoints live long and in no cycles: looking for garbage among them takes a seventh of a second, in a move too.
    gc.set_threshold(50_000, 50, 100)
    log.info("starts", version=__version__, pid=os.getpid(), grpc=me.grpc, metrics=me.metrics)
    server.start()
    agent.start()
    while not ended.wait(0.1) and not agent.failed:
        pass
    began_s = time.monotonic()
    server.stop(1.0)
    metrics.stop()
    agent.stop()
    log.info("ends", took_s=round(time.monotonic() - began_s, 2))
    return 70 if agent.failed else 0
