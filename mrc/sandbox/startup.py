"""Brings parts of the sandbox up, side by side, each after what it needs, and waits until they really work.

Owns the order: topics and ACLs before Connect, both regions' topics before any connector. What runs already is only
waited for, so a start may be repeated at any time.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import mrc
from mrc.core.errors import MrcError
from mrc.sandbox import connect, estate, jars, kafka, links, processes, zookeeper
from mrc.sandbox import layout as places
from mrc.sandbox.layout import Layout, Part, State

Progress = Callable[[str, str], None]
"""Told of a part and what has become of it; called from several threads."""

READY_TIMEOUT_S = 300.0
AGENT_READY_TIMEOUT_S = 120.0
POLL_S = 0.15
LIVENESS_EVERY = 8

JVM = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    f"-Dlog4j2.configurationFile={jars.LOGGING}",
)


class GivenUp(MrcError):
    """A wait that ended because another part failed; never the cause of anything."""


class Crew:
    """Jobs that are done side by side; when one fails, the waits of the others end."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._cancelled = threading.Event()

    def together(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do the jobs in threads and return when all have ended. Raises the failure that came first in their order, or Ctrl-C."""
        with ThreadPoolExecutor(max_workers=max(1, len(jobs))) as pool:
            try:
                futures = [pool.submit(self._or_cancel, job) for job in jobs]
                failures = [error for future in futures if (error := future.exception()) is not None]
            except KeyboardInterrupt:
                # Before the pool waits for its threads: they are to give up, not to finish.
                self._cancelled.set()
                raise
        if failures:
            raise next((error for error in failures if not isinstance(error, GivenUp)), failures[0])

    def spawn(self, part: Part, argv: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start ``part`` where it does not run. Raises ``SANDBOX_FAILED`` when another program has its port."""
        if part.name in processes.running(self._state.folder):
            return
        if not places.port_free(part.port):
            raise MrcError("SANDBOX_FAILED", f"another program listens on port {part.port} of {part.name}", where=str(self._state.folder))
        processes.spawn(self._state.folder, part.name, argv, self._state.log(part.name), environment)

    def wait(self, part: str, ready: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when ``ready``. Raises ``SANDBOX_FAILED`` when the part ends by itself or is too slow, `GivenUp` when a job failed."""
        deadline = time.monotonic() + timeout_s
        tries = 0
        while not ready():
            tries += 1
            if self._cancelled.is_set():
                raise GivenUp("SANDBOX_FAILED", "given up, for another part failed", where=part)
            log = self._state.log(part)
            if tries % LIVENESS_EVERY == 0 and part not in processes.running(self._state.folder):
                raise MrcError("SANDBOX_FAILED", f"{part} ended by itself: {_last_words(log)}", where=str(log))
            if time.monotonic() > deadline:
                raise MrcError("SANDBOX_FAILED", f"{part} was not ready after {timeout_s:.0f} s", where=str(log))
            time.sleep(POLL_S)

    def _or_cancel(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException:
            self._cancelled.set()
            raise


class Startup:
    """One start of some or all sites."""

    def __init__(self, layout: Layout, state: State, library: Path, progress: Progress) -> None:
        self._layout = layout
        self._state = state
        self._progress = progress
        self._crew = Crew(state)
        self._class_path = ("-cp", f"{library}/*")

    def run(self, sites: Sequence[str]) -> None:
        """Start the servers of ``sites`` that do not run, furnish them, and return when they work. Raises ``SANDBOX_FAILED``."""
        regions = [site for site in sites if site in places.REGIONS]
        self._crew.together([partial(self._link, part) for part in self._layout.links()])
        self._crew.together([partial(self._zookeeper, site) for site in sites] + [partial(self._region, region) for region in regions])
        # Only now: a connector that starts before its topics are there looks for them again a minute later.
        self._crew.together([partial(self._flow, region) for region in regions])

    def _link(self, part: Part) -> None:
        command = [sys.executable, "-m", "mrc.sandbox.links", *links.arguments(self._layout.routes(part))]
        self._crew.spawn(part, command, _own_code())
        self._crew.wait(part.name, partial(answers, part.port))

    def spawn_zookeeper(self, site: str) -> Part:
        """Start the ZooKeeper server of ``site`` where it does not run, and wait for nothing."""
        part = self._part(f"{site}-zookeeper")
        path = zookeeper.prepare(self._layout, self._state, site)
        java = [*self._java("64m"), f"-Dzookeeper.fastleader.maxNotificationInterval={zookeeper.SILENCE_MS}"]
        self._crew.spawn(part, [*java, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(path)])
        return part

    def _zookeeper(self, site: str) -> None:
        part = self.spawn_zookeeper(site)
        self._crew.wait(part.name, partial(zookeeper.serves, part.port))
        self._progress(part.name, "ready")

    def _region(self, region: str) -> None:
        nodes = self._layout.broker_ids()
        self._crew.together([partial(self._broker, region, node) for node in nodes])
        cluster = kafka.RegionCluster(self._layout, self._state, region)
        for node in nodes:
            self._crew.wait(places.broker(region, node), cluster.serves)
            self._progress(places.broker(region, node), "ready")
        cluster.furnish()
        part = self._part(f"{region}-connect")
        path = connect.prepare(self._layout, self._state, region)
        self._crew.spawn(part, [*self._java("256m"), "org.apache.kafka.connect.cli.ConnectDistributed", str(path)])
        self._crew.wait(part.name, partial(connect.serves, self._layout.connect_url(region)))
        self._progress(part.name, "ready")

    def _broker(self, region: str, node: int) -> None:
        path = kafka.prepare(self._layout, self._state, region, node, self._java("128m"))
        heap = "384m" if self._layout.options.brokers == 1 else "224m"
        self._crew.spawn(self._part(places.broker(region, node)), [*self._java(heap), "kafka.Kafka", str(path)])

    def _flow(self, target: str) -> None:
        worker = f"{target}-connect"
        self._crew.wait(worker, partial(self._furnished, target))
        source = places.other(target)
        # A flow out of a dead region cannot settle; it does so by itself when that region is back.
        if places.broker(source, 1) in processes.running(self._state.folder):
            flow = f"flow {source}->{target}"
            self._progress(flow, "waits for its connectors and all their tasks")
            self._crew.wait(worker, partial(connect.settled, self._layout, self._state, target))
            self._progress(flow, "ready")

    def _furnished(self, target: str) -> bool:
        try:
            connect.furnish(self._layout, self._state, target)
        except MrcError as error:
            if not error.retryable:
                raise
            return False
        return True

    def _java(self, heap: str) -> list[str]:
        # A JVM that is killed leaves the native libraries behind that it unpacked for itself.
        self._state.temporary.mkdir(exist_ok=True)
        return [jars.java(), f"-Xmx{heap}", f"-Djava.io.tmpdir={self._state.temporary}", *JVM, *self._class_path]

    def _part(self, name: str) -> Part:
        return next(part for part in self._layout.servers() if part.name == name)


def start_agents(state: State, parts: Sequence[Part]) -> None:
    """Start those agents that do not run, side by side, and return when their gRPC ports answer. Raises ``SANDBOX_FAILED``."""
    crew = Crew(state)
    configs = {region: estate.seen_from(state, region) for region in {part.region for part in parts}}

    def start(part: Part) -> None:
        command = [sys.executable, "-m", "mrc", "agent", "run", "--region", part.region, "--agent", part.name]
        crew.spawn(part, [*command, "--config", str(configs[part.region])], _own_code())
        crew.wait(part.name, partial(answers, part.port), AGENT_READY_TIMEOUT_S)

    crew.together([partial(start, part) for part in parts])


def _own_code() -> dict[str, str]:
    """Return what lets a Python of the sandbox find the very code that started it, wherever that stands."""
    return {"PYTHONPATH": str(Path(mrc.__file__).parents[1])}


def answers(port: int) -> bool:
    """Whether somebody listens on the loopback port."""
    try:
        with socket.create_connection((places.HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    loud = [line for line in lines[-200:] if "ERROR" in line or "Exception" in line or "Error:" in line]
    return (loud or lines or ["nothing printed"])[-1].strip()
