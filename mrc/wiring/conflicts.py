"""What is asked about conflicts, by operators or through agents: logs of the regions, the kinds of entities, and a clock; no ZooKeeper."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import structlog

from mrc.adapters.clock import SystemClock
from mrc.adapters.kafka.appending import Appender
from mrc.adapters.kafka.logs import KafkaLogs
from mrc.adapters.rocks import RocksShelves
from mrc.config.settings import ReplicationGroup, Settings
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Logs
from mrc.resolver import comparing, replaying
from mrc.resolver.audit import Progress
from mrc.resolver.comparing import Comparison
from mrc.resolver.deciding import Append
from mrc.resolver.docket import Docket, SparingLogs
from mrc.resolver.kinds import Kind
from mrc.resolver.replaying import DryRun
from mrc.resolver.versions import TopicRules, versions
from mrc.wiring.estates import access, unit
from mrc.wiring.resolver import kinds_of, kinds_written

CALL_S = 10.0
"""How long a cluster that does not answer is asked."""


def chosen(settings: Settings, group: ReplicationGroup, topic: str | None) -> list[Kind]:
    """Return the kinds of entities that are asked about. Raises ``UNKNOWN_TOPIC``, ``CONFIG_INVALID``, ``RULES_INVALID``."""
    kinds = kinds_of(settings, group)
    found = [kind for kind in kinds if topic in (None, kind.topic)]
    if not found:
        raise MrcError("UNKNOWN_TOPIC", f"no rules are about {topic}; there are rules about {', '.join(kind.topic for kind in kinds)}")
    return found


def region_of(group: ReplicationGroup, name: str | None) -> Region:
    """Return the region that is asked: the one that is named, else the group's first. Raises ``UNKNOWN_REGION``."""
    regions = unit(group).regions
    if name is not None and name not in regions:
        raise MrcError("UNKNOWN_REGION", f"{name} is not a region of {group.name}; there are {', '.join(regions)}")
    return regions[0] if name is None else Region(name)


@contextmanager
def logs_of(settings: Settings, regions: Sequence[Region]) -> Iterator[dict[Region, Logs]]:
    """Give the logs of regions, as reached from outside of all, and close them in the end."""
    with ExitStack() as stack:
        ways = {region: access(settings.region(region).kafka, remote=True) for region in regions}
        yield {region: stack.enter_context(closing(KafkaLogs(region, way, CALL_S))) for region, way in ways.items()}


@contextmanager
def dockets(
    settings: Settings, kinds: Sequence[Kind], regions: Sequence[Region], warn: Callable[[str], None], progress: Progress
) -> Iterator[dict[Region, Docket]]:
    """Give these regions' dockets, as reached from outside of all, and close their connections in the end."""
    clock = SystemClock()
    with logs_of(settings, regions) as logs, ExitStack() as stack:
        yield {
            region: Docket(one, stack.enter_context(_append(settings, region, remote=True)), region, kinds, clock, warn, progress)
            for region, one in logs.items()
        }


@contextmanager
def _append(settings: Settings, here: Region, *, remote: bool) -> Iterator[Append]:
    """Give what writes in a region; it connects when it does."""
    appender = Appender(access(settings.region(here).kafka, remote=remote), here, CALL_S)

    def append(topic: str, partition: int, key: bytes, value: bytes) -> None:
        appender.append(topic, [(key, value)], partition)

    with closing(appender):
        yield append


class AgentDockets:
    """The dockets that an agent opens for whoever asks it: those of its own region. May be called from many threads at once."""

    def __init__(self, settings: Settings, region: Region) -> None:
        self._settings = settings
        self._region = region

    @contextmanager
    def docket(self, rg: str, topic: str, check: Callable[[], None]) -> Iterator[Docket]:
        """See `mrc.control.service.Dockets.docket`. The rules file is read as it is now."""
        group = self._settings.replication_group(rg or None)
        kinds, here, clock = chosen(self._settings, group, topic or None), region_of(group, self._region), SystemClock()
        way = access(self._settings.region(here).kafka, remote=False)
        with closing(KafkaLogs(here, way, CALL_S)) as logs, _append(self._settings, here, remote=False) as append:
            yield Docket(SparingLogs(logs, clock, check), append, here, kinds, clock, _said_once())


def _said_once() -> Callable[[str], None]:
    """Return what logs the first record of a call that cannot be read: whoever writes such, writes many."""
    first = iter((True,))

    def warn(words: str) -> None:
        if next(first, False):
            structlog.get_logger("mrc.conflicts").warning("left out", why=words)

    return warn


def compare(settings: Settings, group: ReplicationGroup, kinds: Sequence[Kind], wait_s: float, progress: Progress) -> Comparison:
    """See `mrc.resolver.comparing.compare`, of all regions of the group."""
    with logs_of(settings, unit(group).regions) as logs:
        return comparing.compare(logs, kinds, SystemClock(), wait_s, progress)


def rules_status(settings: Settings, group: ReplicationGroup) -> list[TopicRules]:
    """See `mrc.resolver.versions.versions`, of all topics and regions of the group."""
    with logs_of(settings, unit(group).regions) as logs:
        return versions(logs, kinds_of(settings, group))


def dry_run(
    settings: Settings,
    group: ReplicationGroup,
    rules: Path,
    here: Region,
    since_ms: int | None,
    offsets: Mapping[TopicPartition, Offset],
    progress: Progress,
) -> tuple[DryRun, tuple[str, ...]]:
    """See `mrc.resolver.replaying.dry_run`; also return the topics that only one of the two rules files is about, which are not replayed.

    Raises:
        MrcError: ``RULES_INVALID`` also where the two are about no topic in common.
    """
    now = {kind.topic: kind for kind in kinds_of(settings, group)}
    then = {kind.topic: kind for kind in kinds_written(rules, group)}
    pairs = [(kind, then[topic]) for topic, kind in now.items() if topic in then]
    if not pairs:
        raise MrcError("RULES_INVALID", f"{rules} is about none of {', '.join(now)}", where=str(rules))
    with logs_of(settings, [here]) as logs, tempfile.TemporaryDirectory(prefix="mrc-dry-run-") as scratch:
        found = replaying.dry_run(logs[here], RocksShelves(Path(scratch)), pairs, here, since_ms, offsets, progress)
    return found, tuple(sorted(now.keys() ^ then.keys()))
