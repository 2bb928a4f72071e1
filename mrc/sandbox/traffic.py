"""The sandbox's traffic: a producer process and a consumer process that follow the active region and log what happened to them.

``python -m mrc.sandbox.traffic producer|consumer`` is one of the processes; `Traffic` starts, watches and ends them.
They end by SIGTERM (cleanly: answers awaited, final commit, logs closed), after ``--duration``, or with the sandbox.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import mrc
from mrc.client import ActiveRegion, client_config
from mrc.config import ReplicationGroup, Settings, load
from mrc.core.errors import MrcError
from mrc.core.model import Region, target_topic
from mrc.sandbox import processes
from mrc.sandbox.judge import LIMITS, Limits, Move, RegionLog, Verdict, judge, read_log
from mrc.sandbox.layout import State, other
from mrc.sandbox.traffic_consumer import GroupMember, catch_up_flag, run_members
from mrc.sandbox.traffic_log import Logs, LogWriter
from mrc.sandbox.traffic_producer import ProducerProcess

PRODUCER = "traffic-producer"
CONSUMER = "traffic-consumer"
GRACE_S = 15.0
POLL_S = 0.1
DELAYS_S: Mapping[str, float] = {"billing": 0.0, "shipping": 2.0}
"""Groups of the sandbox by how far they stay behind, in seconds."""


class Traffic:
    """The traffic of one sandbox.

    Every figure comes from the logs below ``folder``; nothing here asks mrc, and of ZooKeeper it reads only the record
    that tells applications where to be.
    """

    def __init__(self, state: Path, folder: Path | None = None) -> None:
        """Look at the traffic of the sandbox whose state folder is ``state``; nothing is started yet.

        Args:
            state: the sandbox's state folder.
            folder: where the logs go; default ``traffic`` below the state folder.
        """
        self._state = State(state)
        self.folder = (folder or self._state.folder / "traffic").resolve()
        self._logs = Logs(self.folder)
        self._reading = threading.Lock()

    def start(
        self, rate: float = 1000.0, groups: Mapping[str, float] | Sequence[str] = DELAYS_S, *, duration_s: float | None = None
    ) -> None:
        """Start what does not run: a producer at ``rate`` events per second (0: none) and ``groups`` with their delays in seconds."""
        delays_s = groups if isinstance(groups, Mapping) else {group: DELAYS_S.get(group, 0.0) for group in groups}
        self.folder.mkdir(parents=True, exist_ok=True)
        for group in delays_s:
            catch_up_flag(self.folder, group).unlink(missing_ok=True)
        until = ["--duration", str(duration_s)] if duration_s is not None else []
        if delays_s:
            self._spawn(CONSUMER, ["consumer", *until, *(f"--group={group}:{delay_s}" for group, delay_s in delays_s.items())])
        if rate > 0:
            self._spawn(PRODUCER, ["producer", *until, f"--rate={rate}"])

    def logs(self) -> Logs:
        """Return everything that was logged so far."""
        with self._reading:
            return self._logs.refresh()

    def running(self) -> dict[str, int]:
        """Return the pids of the traffic's live processes by name."""
        live = processes.running(self._state.folder)
        return {name: live[name].pid for name in (PRODUCER, CONSUMER) if name in live}

    def acked(self, region: str | None = None) -> int:
        """Return how many events were acknowledged so far (in ``region``)."""
        return sum(region in (None, line.region) for line in self.logs().acked)

    def processed(self, group: str, region: str | None = None) -> int:
        """Return how many events ``group`` has processed so far (in ``region``), repetitions included."""
        return sum(line.group == group and region in (None, line.region) for line in self.logs().processed)

    def wait_acked(self, number: int, timeout_s: float, region: str | None = None) -> bool:
        """Wait until ``number`` further events are acknowledged (in ``region``); False when they are not in time."""
        wanted = self.acked(region) + number
        return _wait(lambda: self.acked(region) >= wanted, timeout_s)

    def wait_processed(self, number: int, timeout_s: float, groups: Sequence[str], region: str | None = None) -> bool:
        """Wait until each of ``groups`` has processed ``number`` further events (in ``region``); False when not in time."""
        wanted = {group: self.processed(group, region) + number for group in groups}
        return _wait(lambda: all(self.processed(group, region) >= count for group, count in wanted.items()), timeout_s)

    def catch_up(self, *groups: str) -> None:
        """Tell ``groups`` (none named: all that have been seen) to drop their delays, until the next `start`."""
        for group in groups or self.groups():
            catch_up_flag(self.folder, group).touch()

    def groups(self) -> tuple[str, ...]:
        """Return the groups that the logs tell of, sorted."""
        return tuple(sorted({line.group for line in self.logs().processed} | {line.who for line in self.logs().turns} - {"producer"}))

    def stop_producers(self) -> None:
        """End the producer cleanly; what was sent is answered or logged as in doubt. Takes up to 15 s with a dead region."""
        processes.end(self._state.folder, [PRODUCER], grace_s=GRACE_S)

    def stop(self) -> None:
        """End everything cleanly: the producer first, then the groups with a final commit."""
        self.stop_producers()
        processes.end(self._state.folder, [CONSUMER], grace_s=GRACE_S)

    def drain(self, timeout_s: float) -> bool:
        """Let every group catch up and wait until each has processed the active region's log to its end; False when not in time.

        Call `stop_producers` before it.
        """
        self.catch_up()
        deadline_s = time.monotonic() + timeout_s
        region = self._active_region(timeout_s)
        tail = self._read(region, timeout_s=max(0.1, deadline_s - time.monotonic()), last=500)
        lasts = {records[-1][1] for records in tail.values() if records}
        groups = self.groups()

        def drained() -> bool:
            done = {group: set[str]() for group in groups}
            for line in self.logs().processed:
                if line.id in lasts:
                    done[line.group].add(line.id)
            return all(done[group] >= lasts for group in groups)

        return _wait(drained, deadline_s - time.monotonic())

    def judge(
        self,
        moves: Sequence[Move],
        *,
        groups: Sequence[str] | None = None,
        active: str | None = None,
        drained: bool = True,
        limits: Limits = LIMITS,
        timeout_s: float = 60.0,
    ) -> Verdict:
        """Return the verdict over ``moves`` from these logs and a full read of every region that answers in time.

        Args:
            moves: in the order of acceptance; may be empty.
            groups: those that must have followed; default: those that the logs tell of.
            active: the region that was active before the first; default: the first move's source, else the record's.
            drained: whether `drain` succeeded.
            limits: of the times.
            timeout_s: for the read of each region.
        """
        # Before the regions are read: an event acknowledged in between must not look lost.
        traffic = self.logs().copy()
        logs: dict[str, RegionLog] = {}
        for region in self._settings().regions:
            try:
                logs[region] = self._read(region, timeout_s=timeout_s)
            except MrcError:
                continue  # the judge counts a missing log against the moves that need it
        first = active or (moves[0].source if moves else self._active_region(5.0))
        return judge(traffic, logs, moves, self.groups() if groups is None else groups, active=first, drained=drained, limits=limits)

    def _read(self, region: str, *, timeout_s: float, last: int | None = None) -> RegionLog:
        settings = self._settings()
        config = client_config(settings, Region(region), "admin", self._state.secret("admin").read_text().strip())
        return read_log(config, readable(settings.replication_groups[0], region), timeout_s=timeout_s, last=last)

    def _active_region(self, timeout_s: float) -> str:
        settings = self._settings()
        with _follow(settings, settings.replication_groups[0]) as active:
            record = active.wait_beyond(0, timeout_s).record
        if record is None:
            raise MrcError("ZOOKEEPER_UNREACHABLE", f"no active-region record within {timeout_s:.0f} s")
        return record.region

    def _settings(self) -> Settings:
        return load(self._state.config)

    def _spawn(self, part: str, arguments: Sequence[str]) -> None:
        if part in self.running():
            return
        argv = [sys.executable, "-m", "mrc.sandbox.traffic", *arguments]
        environment = {"PYTHONPATH": str(Path(mrc.__file__).parents[1])}
        where = [f"--state={self._state.folder}", f"--folder={self.folder}"]
        processes.spawn(self._state.folder, part, [*argv, *where], self.folder / f"{part}.log", environment)


def readable(group: ReplicationGroup, region: str) -> list[str]:
    """Return the topics that hold the group's events in a region: those that are written there, and MM2's copies of the other's."""
    copies = [target_topic(group.policy, Region(other(region)), topic) for topic in group.topics]
    return list(dict.fromkeys([*group.topics, *copies]))


def _follow(settings: Settings, group: ReplicationGroup) -> ActiveRegion:
    zookeeper = settings.zookeeper
    return ActiveRegion(zookeeper.connect, group.name, root=zookeeper.root, session_timeout_s=zookeeper.session_timeout_ms / 1000)


def _wait(done: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


# ---------------------------------------------------------------- the processes


def main(arguments: Sequence[str]) -> int:
    """Be the producer or the consumer process until a signal or the duration ends it."""
    parser = argparse.ArgumentParser(prog="python -m mrc.sandbox.traffic", description=__doc__)
    parser.add_argument("role", choices=["producer", "consumer"])
    parser.add_argument("--state", type=Path, required=True, help="the sandbox's state folder")
    parser.add_argument("--folder", type=Path, required=True, help="where the logs go")
    parser.add_argument("--duration", type=float, default=None, metavar="S", help="end by itself after so many seconds")
    parser.add_argument("--rate", type=float, default=1000.0, help="events per second")
    parser.add_argument("--group", action="append", default=[], metavar="GROUP[:DELAY_S]", help="a group and how far it stays behind")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if asked.duration is not None:
        timer = threading.Timer(asked.duration, stop.set)
        timer.daemon = True
        timer.start()
    settings = load(State(asked.state).config)
    with _follow(settings, settings.replication_groups[0]) as active:
        if asked.role == "producer":
            _produce(asked, settings, active, stop)
        else:
            _consume(asked, settings, active, stop)
    return 0


def _produce(asked: argparse.Namespace, settings: Settings, active: ActiveRegion, stop: threading.Event) -> None:
    run = f"{time.time_ns() // 1_000_000:x}"
    log = LogWriter(asked.folder / f"producer-{run}.jsonl")
    topics = settings.replication_groups[0].topics
    ProducerProcess(active, _configs(asked.state, settings, "producer"), topics, asked.rate, log, run).run_until(stop.is_set)


def _consume(asked: argparse.Namespace, settings: Settings, active: ActiveRegion, stop: threading.Event) -> None:
    run = f"{time.time_ns() // 1_000_000:x}"
    configs = _configs(asked.state, settings, "consumer")
    members = []
    topics = {Region(region): readable(settings.replication_groups[0], region) for region in settings.regions}
    for wish in asked.group:
        group, _, delay = wish.partition(":")
        log = LogWriter(asked.folder / f"group-{group}-{run}.jsonl")
        members.append(GroupMember(active, configs, group, topics, float(delay or 0), asked.folder, log))
    run_members(members, stop)


def _configs(state: Path, settings: Settings, user: str) -> dict[Region, dict[str, str]]:
    password = State(state).secret(user).read_text().strip()
    return {
        Region(region): {**client_config(settings, Region(region), user, password), "client.id": f"traffic-{user}"}
        for region in settings.regions
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
