"""The sandbox as one thing: up, down, kill a region, start it again, run agents.

Every verb may be repeated and may follow any crash of mrc itself: what runs is read from the machine, what was chosen
from the state folder. One verb that changes servers works on a state folder at a time (a file lock).
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from mrc.core.errors import MrcError
from mrc.sandbox import estate, jars, kafka, processes, zookeeper
from mrc.sandbox import layout as places
from mrc.sandbox.layout import Layout, Options, Part, State
from mrc.sandbox.startup import Progress, Startup, answers, start_agents

LOCK_TIMEOUT_S = 240.0
LOCK_POLL_S = 0.2
STOP_GRACE_S = 10.0


PartState = Literal["up", "starting", "cut", "down"]


class PartStatus(msgspec.Struct, frozen=True):
    """How a part is doing.

    Attributes:
        part, region, kind, port: see `Part`.
        pid: None where it does not run.
        state: ``up``: it runs and its port answers; ``starting``: it runs; ``cut``: a link lets nothing through; ``down``: it does not run.
        rss_mb: resident memory in MiB, 0 where it does not run.
    """

    part: str
    region: str
    kind: str
    port: int
    pid: int | None
    state: PartState
    rss_mb: int


def silent(part: str, what: str) -> None:
    """Tell nobody."""


class Sandbox:
    """Two regions, a witness and their agents below one state folder."""

    def __init__(self, state: Path) -> None:
        self.state = State(state)

    @property
    def config_path(self) -> Path:
        """The generated mrc.yaml."""
        return self.state.config

    @property
    def layout(self) -> Layout:
        """Options and ports. Raises ``SANDBOX_FAILED`` before the first `up`."""
        layout = self.state.layout()
        if layout is None:
            raise MrcError("SANDBOX_FAILED", "there is no sandbox here; `mrc sandbox up` makes one", where=str(self.state.folder))
        return layout

    @property
    def options(self) -> Options:
        """What it was made with; before the first `up` the defaults."""
        layout = self.state.layout()
        return Options() if layout is None else layout.options

    def logs(self) -> dict[str, Path]:
        """Return the log file of every part that ever printed, by name."""
        return {path.stem: path for path in sorted((self.state.folder / "logs").glob("*.log"))}

    def log_path(self, part: str) -> Path:
        """Return the file that holds what the part printed."""
        return self.state.log(part)

    def client_config(self, region: str, user: str) -> dict[str, str]:
        """Return librdkafka's settings for one of the sandbox's users in ``region``."""
        return kafka.client_config(self.layout, self.state, _known_region(region), user)

    # ---------------------------------------------------------------- servers

    def up(self, options: Options | None = None, progress: Progress = silent) -> None:
        """Make what is missing and start what does not run; return when all of it works. Quick when there is nothing to do.

        ``options`` None: as the sandbox was made, else the defaults. Raises ``SANDBOX_FAILED`` with the log to read; what
        runs by then goes on, and `up` or `down` may follow.
        """
        library = jars.fetch(partial(progress, "jars"))
        with self._locked():
            if self.state.layout() is None:
                # Left behind by a state folder that was deleted under its processes.
                processes.end(self.state.folder, grace_s=0)
            layout = self.state.make(options)
            estate.write(layout, self.state)
            Startup(layout, self.state, library, progress).run(places.sites())
            if zookeeper.write_first_record(layout):
                progress("record", f"{layout.options.active} is the active region")

    def start(self, region: str, progress: Progress = silent) -> None:
        """Start the servers of ``region`` that do not run, and return when they work. Agents are started apart."""
        library = jars.fetch(partial(progress, "jars"))
        with self._locked():
            Startup(self.layout, self.state, library, progress).run([_known_region(region)])

    def kill(self, region: str, *, agents: bool = True) -> list[str]:
        """Kill (SIGKILL, all at once) the brokers, Connect and ZooKeeper server of ``region``, and its agents; return what died."""
        victims = [part.name for part in self._parts(region, agents=agents)]
        with self._locked():
            return _names(processes.end(self.state.folder, victims, grace_s=0))

    def cut(self, region: str) -> None:
        """Cut ``region`` off from the other one and from the witness: whatever is sent across stays under way until `mend`.

        Raises ``BAD_REQUEST`` where the sandbox was made without links.
        """
        cut = self._links(region)
        library = jars.fetch(partial(silent, "jars"))
        with self._locked():
            processes.send(self.state.folder, cut, signal.SIGSTOP)
            # ZooKeeper's servers call one another back around the links. Such calls end with the server; it finds nobody afterwards.
            processes.end(self.state.folder, [f"{region}-zookeeper"], grace_s=0)
            Startup(self.layout, self.state, library, silent).spawn_zookeeper(region)

    def mend(self, region: str) -> None:
        """End `cut`: what was under way arrives. The link to a region that is cut off itself stays as it is."""
        mended = self._links(region)
        there = places.other(region)
        with self._locked():
            if self._silenced(places.link_between(there, "witness")):
                mended.remove(places.link_between(region, there))
            processes.send(self.state.folder, mended, signal.SIGCONT)

    def down(self, *, wipe: bool = False) -> list[str]:
        """End every process of the sandbox and return their parts. Data and logs stay, unless ``wipe``."""
        if not self.state.folder.is_dir():
            return _names(processes.end(self.state.folder, grace_s=0))
        with self._locked():
            if (layout := self.state.layout()) is not None:
                processes.send(self.state.folder, [part.name for part in layout.links()], signal.SIGCONT)
            ended = [name for wave in self._waves() for name in _names(processes.end(self.state.folder, wave, grace_s=STOP_GRACE_S))]
            shutil.rmtree(self.state.temporary, ignore_errors=True)
            if wipe:
                self._wipe()
        return ended

    def status(self) -> list[PartStatus]:
        """Return how every part is doing, and after them any other process of the sandbox."""
        layout = self.layout
        live = processes.running(self.state.folder)
        rows = [_status(part, live.pop(part.name, None)) for part in [*layout.servers(), *layout.agents()]]
        rest = [PartStatus(name, "", "other", 0, process.pid, "up", process.rss_mb) for name, process in sorted(live.items())]
        return rows + rest

    def env(self) -> dict[str, str]:
        """Return what a shell needs to work with the sandbox."""
        layout = self.layout
        found = {
            "MRC_CONFIG": str(self.config_path),
            "MRC_ZOOKEEPER": layout.zookeeper(),
            "MRC_SECRETS": str(self.state.folder / "secrets"),
        }
        for region in places.REGIONS:
            found[f"MRC_{region.upper()}_BOOTSTRAP"] = layout.bootstrap(region)
            found[f"MRC_{region.upper()}_CONNECT"] = layout.connect_url(region)
        return found

    # ---------------------------------------------------------------- agents

    def start_agent(self, agent: str) -> None:
        """Start one agent where it does not run, and return when its gRPC port answers. Raises ``SANDBOX_FAILED``."""
        part = self._agent(agent)
        start_agents(self.state, [part])

    def stop_agent(self, agent: str) -> None:
        """Ask one agent to hand over and end (SIGTERM, then SIGKILL after 10 s); harmless when it does not run."""
        processes.end(self.state.folder, [self._agent(agent).name], grace_s=STOP_GRACE_S)

    def kill_agent(self, agent: str) -> None:
        """Kill one agent (SIGKILL); harmless when it does not run."""
        processes.end(self.state.folder, [self._agent(agent).name], grace_s=0)

    def start_agents(self, region: str | None = None) -> list[str]:
        """Start the agents of ``region`` (None: of both) side by side, and return their ids."""
        parts = self._agents(region)
        start_agents(self.state, parts)
        return [part.name for part in parts]

    def stop_agents(self, region: str | None = None) -> list[str]:
        """Stop the agents of ``region`` (None: of both) at once, and return those that ran."""
        return _names(processes.end(self.state.folder, [part.name for part in self._agents(region)], grace_s=STOP_GRACE_S))

    # ---------------------------------------------------------------- inside

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the state folder. Raises ``SANDBOX_FAILED`` when another command holds it for 60 s."""
        self.state.folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        with (self.state.folder / "lock").open("w") as file:
            while not _try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    raise MrcError(
                        "SANDBOX_FAILED", "another `mrc sandbox` command is at work here", where=str(self.state.folder), retryable=True
                    )
                time.sleep(LOCK_POLL_S)
            yield

    def _waves(self) -> Iterator[list[str] | None]:
        """Yield what to end together: clients before the servers that they take their leave of, and at last whatever is left."""
        layout = self.state.layout()
        servers = [] if layout is None else layout.servers()
        kept = {part.name for part in servers if part.kind in ("broker", "zookeeper")}
        yield [name for name in processes.running(self.state.folder) if name not in kept]
        yield [part.name for part in servers if part.kind == "broker"]
        yield None

    def _wipe(self) -> None:
        """Remove what the sandbox made, and the folder itself when nothing else is in it."""
        for name in ("data", "etc", "logs", "secrets", "tmp", "traffic", "demo-traffic"):
            shutil.rmtree(self.state.folder / name, ignore_errors=True)
        # Last: without it the rest is no sandbox, with it the ports are kept.
        for name in ("mrc-east.yaml", "mrc-west.yaml", "mrc.yaml", "sandbox.json", "lock"):
            (self.state.folder / name).unlink(missing_ok=True)
        if not any(self.state.folder.iterdir()):
            self.state.folder.rmdir()

    def _parts(self, region: str, *, agents: bool) -> list[Part]:
        layout = self.layout
        parts = layout.servers() + (layout.agents() if agents else [])
        return [part for part in parts if part.region == _known_region(region)]

    def _links(self, region: str) -> list[str]:
        """Return the links of a region to the other sites."""
        if not self.layout.options.links:
            message = (
                "this sandbox was made without links, so nothing can be cut; `mrc sandbox up --links` makes one, in a folder of its own"
            )
            raise MrcError("BAD_REQUEST", message, where=str(self.state.folder))
        return [places.link_between(_known_region(region), site) for site in places.sites() if site != region]

    def _silenced(self, link: str) -> bool:
        process = processes.running(self.state.folder).get(link)
        return process is not None and processes.stopped(process.pid)

    def _agent(self, agent: str) -> Part:
        parts = {part.name: part for part in self.layout.agents()}
        if agent not in parts:
            raise MrcError("BAD_REQUEST", f"no agent {agent!r} in the sandbox; there are {', '.join(parts)}")
        return parts[agent]

    def _agents(self, region: str | None) -> list[Part]:
        wanted = None if region is None else _known_region(region)
        return [part for part in self.layout.agents() if wanted in (None, part.region)]


def _known_region(region: str) -> str:
    if region not in places.REGIONS:
        raise MrcError("UNKNOWN_REGION", f"no region {region!r} in the sandbox; there are {', '.join(places.REGIONS)}")
    return region


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(ended: Iterable[processes.Process]) -> list[str]:
    return list(dict.fromkeys(process.part for process in ended))


def _status(part: Part, process: processes.Process | None) -> PartStatus:
    state: PartState = "down" if process is None else "up" if answers(part.port) else "starting"
    if part.kind == "link" and process is not None and processes.stopped(process.pid):
        state = "cut"
    pid, rss_mb = (None, 0) if process is None else (process.pid, process.rss_mb)
    return PartStatus(part.name, part.region, part.kind, part.port, pid, state, rss_mb)
