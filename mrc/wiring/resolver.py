"""Runs one resolver: makes its topics, waits for those of others, and runs the loop until it is told to end.

A world error that may pass drops everything, disk and connections alike, and begins anew after a pause that grows to `PAUSE_MAX_S`;
any other ends the process with its words.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog

from mrc import __version__
from mrc.adapters.clock import SystemClock
from mrc.adapters.kafka import Access, KafkaCluster
from mrc.adapters.kafka.streaming import KafkaStreamLog
from mrc.adapters.rocks import RocksShelves
from mrc.config.conflicts import load_resolvable, ready
from mrc.config.settings import ReplicationGroup, Settings
from mrc.core.errors import MrcError
from mrc.core.model import Region
from mrc.resolver.kinds import Kind, Topics, check_partitions, check_timestamps, kind_of, topics
from mrc.resolver.loop import Resolver
from mrc.telemetry.logs import configure_logs
from mrc.telemetry.metrics import ResolverCollector, serve
from mrc.wiring.estates import access, unit

CALL_S = 10.0
"""What a call to the region's own cluster may take; nobody's lease waits for it."""

POLL_S = 0.2
PAUSE_S = 0.5
PAUSE_MAX_S = 5.0


class Process:
    """One resolver process.

    Args:
        reached: how the region's cluster is reached.
        group: the replication group.
        kinds: what is resolved.
        here: the region.
        instance: the process's name among those of the region.
        state: the folder of its state.
    """

    def __init__(self, reached: Access, group: ReplicationGroup, kinds: Sequence[Kind], here: Region, instance: str, state: Path) -> None:
        self._access = reached
        self._kinds = kinds
        self._here = here
        self._instance = instance
        self._consumer_group = f"mrc.resolver.{group.name}"
        self._shelves = RocksShelves(state)
        self._names = [topics(kind, here) for kind in kinds]
        self._log = structlog.get_logger().bind(region=here, group=group.name, instance=instance)
        self.ended = threading.Event()
        self.resolver: Resolver | None = None
        self._failures = 0

    def run(self) -> None:
        """Run until `ended` is set. Raises what does not pass by itself."""
        last = ""
        while not self.ended.is_set():
            try:
                self._live()
                return
            except MrcError as error:
                if not error.retryable:
                    raise
                if str(error) != last or not self._failures:  # the same failure is said once, not with every try
                    self._log.warning("begins anew", code=error.code, error=error.message, where=error.where)
                last = str(error)
                self._failures += 1
            self.ended.wait(min(PAUSE_MAX_S, PAUSE_S * self._failures))

    def _live(self) -> None:
        """Make everything anew, and work until the end or an error."""
        cluster = KafkaCluster(self._here, self._access, None, CALL_S)
        resolver: Resolver | None = None
        try:
            self._prepare(cluster)
            inputs = [name for names in self._names for name in names.inputs]
            log = KafkaStreamLog(self._access, self._here, self._consumer_group, self._instance, inputs, CALL_S)
            counts = partial(_counts, cluster)
            self.resolver = resolver = Resolver(log, self._shelves, self._kinds, self._here, counts, ready, SystemClock(), self._announce)
            while not self.ended.is_set():
                if resolver.tick(POLL_S) and self._failures:
                    self._log.info("goes on", failures=self._failures)
                    self._failures = 0
        finally:
            self.resolver = None
            if resolver is not None:
                resolver.close()
            cluster.close()

    def _announce(self, word: str, **facts: object) -> None:
        (self._log.warning if word == "other-rules" else self._log.info)(word, **facts)

    def _prepare(self, cluster: KafkaCluster) -> None:
        """Make the resolver's own topics, and check that all that are read are there."""
        for kind, names in zip(self._kinds, self._names, strict=True):
            infos = cluster.topics([*names.inputs, *names.made])
            counts = {name: len(info.leaders) for name, info in infos.items()}
            if kind.topic not in counts:
                raise MrcError("TOPICS_MISSING", f"there is no {kind.topic} yet", where=self._here, retryable=True)
            self._make(cluster, names, counts)
            check_partitions(kind, names, {**dict.fromkeys(names.made, counts[kind.topic]), **counts})
            check_timestamps(kind, names, {name: info.config.get("message.timestamp.type", "") for name, info in infos.items()})

    def _make(self, cluster: KafkaCluster, names: Topics, counts: Mapping[str, int]) -> None:
        for name, settings in names.made.items():
            if name not in counts:
                cluster.make_topic_like(name, counts[names.topic], settings)
                self._log.info("made", topic=name)


def _counts(cluster: KafkaCluster, names: Iterable[str]) -> dict[str, int]:
    """Return the number of partitions of those topics that exist."""
    return {name: len(info.leaders) for name, info in cluster.topics(list(names)).items()}


def kinds_of(settings: Settings, group: ReplicationGroup) -> list[Kind]:
    """Return what a replication group's rules resolve.

    Raises:
        MrcError: ``CONFIG_INVALID`` where it names no rules; ``RULES_INVALID``.
    """
    if group.rules is None:
        raise MrcError("CONFIG_INVALID", f"replication group {group.name} names no conflict rules: `rules: conflicts.yaml`")
    return kinds_written(settings.base / group.rules, group)


def kinds_written(rules: Path, group: ReplicationGroup) -> list[Kind]:
    """Return what the file ``rules`` resolves in a replication group. Raises ``RULES_INVALID``."""
    return [kind_of(one.written.topics[0], one.rules) for one in load_resolvable(rules, unit(group).regions, group.topics)]


def run(settings: Settings, group: ReplicationGroup, region: str, instance: str, state: Path | None, metrics: str | None) -> int:
    """Run a resolver until SIGTERM or SIGINT; return the process's exit code.

    Args:
        settings: the configuration.
        group: an active-active replication group of it, with rules.
        region: one of the group's.
        instance: the process's name, unique in the region.
        state: the folder of its state; a folder beside the configuration where None.
        metrics: host:port for Prometheus; None: nowhere.

    Raises:
        MrcError: asked wrongly, or the world failed in a way that does not pass by itself.
    """
    kinds = kinds_of(settings, group)
    here = Region(region)
    if here not in unit(group).regions:
        raise MrcError("UNKNOWN_REGION", f"{region} is not a region of {group.name}; there are {', '.join(unit(group).regions)}")
    configure_logs()
    folder = state or settings.base / ".mrc-resolver" / group.name / region / instance
    process = Process(access(settings.region(region).kafka, remote=False), group, kinds, here, instance, folder)

    def end(signum: int, frame: object) -> None:
        process.ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    log = structlog.get_logger().bind(region=region, group=group.name, instance=instance)
    server = serve(metrics, ResolverCollector(lambda: process.resolver, region, instance)) if metrics else None
    # What is pending lives long and in no cycles: looking for garbage among it costs a third of the time, for nothing.
    gc.set_threshold(200_000, 50, 100)
    log.info("starts", version=__version__, pid=os.getpid(), state=str(folder), metrics=metrics or "")
    try:
        process.run()
    finally:
        if server is not None:
            server.stop()
    log.info("ends")
    return 0
