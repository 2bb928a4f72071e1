"""Break-glass: positions and executions read from, and positions committed in, one region's Kafka cluster, without agents or ZooKeeper.

Nobody is asked which region is open, in which epoch, or whether a move runs: a person answers for that. What is checked is what
the cluster itself can say: that a group has no members, that its log has the positions, what was committed in the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mrc.adapters.clock import SystemClock
from mrc.adapters.kafka.cluster import KafkaCluster
from mrc.agent import committing
from mrc.config.settings import ReplicationGroup, Settings
from mrc.core.errors import MrcError
from mrc.core.failover import archive
from mrc.core.failover.archive import Archived
from mrc.core.inventory import Position, Unit
from mrc.core.model import GroupId, Region, TopicPartition
from mrc.core.translation.checkpoint import Checkpoint, CheckpointKey, decode_checkpoints
from mrc.core.translation.positions import FilePosition, PositionsFile, checkpoints_topic, safe
from mrc.core.views import CommittedView
from mrc.ports import Cluster
from mrc.wiring.estates import cluster, unit


@contextmanager
def opened(settings: Settings, group: ReplicationGroup, region: str) -> Iterator[KafkaCluster]:
    """Give the region's cluster, as reached from outside, and close it in the end. Raises ``UNKNOWN_REGION``."""
    if region not in unit(group).regions:
        raise MrcError("UNKNOWN_REGION", f"no region {region!r} in {group.name}; there are: {', '.join(unit(group).regions)}")
    found = cluster(settings, group, Region(region), here=None)
    try:
        yield found
    finally:
        found.close()


def read(settings: Settings, group: ReplicationGroup, region: str, only: str) -> PositionsFile:
    """Return the safe positions that mrc has kept in a region of the flow into it.

    Args:
        only: a configured consumer group; empty: all.

    Raises:
        MrcError: ``UNKNOWN_REGION``, ``UNKNOWN_GROUP``; ``UNKNOWN_TOPIC`` where mrc has kept nothing there; world errors.
    """
    with opened(settings, group, region) as there:
        return read_positions(there, unit(group), Region(region), only, SystemClock().now_ms())


def read_positions(there: Cluster, of: Unit, region: Region, only: str, now_ms: int) -> PositionsFile:
    """The same from a cluster that is at hand."""
    require_group(of, only)
    source = of.other(region)
    topic = checkpoints_topic(source)
    if not there.topics([topic]):
        raise MrcError("UNKNOWN_TOPIC", f"there is no {topic}: mrc has kept nothing of a flow from {source}", where=str(region))
    checkpoints, garbled = decode_checkpoints(there.load(topic))
    found: list[FilePosition] = []
    left_out = [f"record with key {key!r} cannot be read" for key in garbled]
    for key in sorted(checkpoints, key=lambda one: (one.group, one.topic, one.partition)):
        if key.group not in of.groups or key.topic not in of.read_in(source) or (only and key.group != only):
            continue
        position = _position(of, source, key, checkpoints[key], now_ms)
        if position is None:
            left_out.append(f"{key.group} {key.topic}-{key.partition}: no target offset is safe")
        else:
            found.append(position)
    return PositionsFile("mrc-positions", 1, of.name, source, region, None, now_ms, "direct", tuple(found), tuple(left_out))


def _position(of: Unit, source: Region, key: CheckpointKey, checkpoint: Checkpoint, now_ms: int) -> FilePosition | None:
    found = safe(checkpoint)
    if found is None:
        return None
    return FilePosition(
        group=key.group,
        topic=of.counterparts(source)[key.topic],
        partition=key.partition,
        offset=found.offset,
        metadata=checkpoint.metadata,
        source_topic=key.topic,
        source_offset=checkpoint.source_offset,
        evidence=found.evidence,
        repeats_max=found.repeats_max,
        age_s=max(0.0, (now_ms - checkpoint.captured_at_ms) / 1000),
    )


def history(settings: Settings, group: ReplicationGroup, region: str) -> dict[str, Archived | MrcError]:
    """Return the executions that are archived in a region by id, oldest first; in place of one that cannot be read, the error.

    Raises:
        MrcError: ``UNKNOWN_REGION``; ``UNKNOWN_TOPIC`` where nothing has been archived there; world errors.
    """
    with opened(settings, group, region) as there:
        return read_history(there, group.name, Region(region))


def read_history(there: Cluster, replication_group: str, region: Region) -> dict[str, Archived | MrcError]:
    """The same from a cluster that is at hand."""
    if not there.topics([archive.TOPIC]):
        raise MrcError("UNKNOWN_TOPIC", f"there is no {archive.TOPIC}: no execution has been archived there yet", where=str(region))
    found, garbled = archive.decode_archive(replication_group, there.load(archive.TOPIC))
    rows: dict[str, Archived | MrcError] = {**found}
    rows |= {id: MrcError("GARBLED_RECORD", f"the record of {id} cannot be read", where=f"{region} {archive.TOPIC}") for id in garbled}
    return dict(sorted(rows.items()))


def require_group(of: Unit, group: str) -> None:
    """Raise ``UNKNOWN_GROUP`` where a group is named that is not configured."""
    if group and group not in of.groups:
        raise MrcError("UNKNOWN_GROUP", f"no group {group!r}; there are: {', '.join(of.groups)}")


def commit(
    there: Cluster, of: Unit, region: Region, group: GroupId, wanted: Mapping[TopicPartition, Position], *, dry_run: bool
) -> tuple[CommittedView, ...]:
    """Commit a group's positions, or only show what would be committed; topics by their names in the region.

    Raises:
        MrcError: ``UNKNOWN_GROUP``, ``UNKNOWN_TOPIC``, ``OFFSET_OUT_OF_RANGE``, ``GROUP_HAS_MEMBERS``, ``NOT_VERIFIED``; world errors.
    """
    require_group(of, group)
    committing.require_topics(of, of.other(region), wanted)
    ready = committing.within(there, wanted)
    before = there.positions(group)
    now_ms = SystemClock().now_ms()
    if dry_run:
        committing.require_empty(there, group, str(region))
        return committing.before_and_after(group, ready, before, None, now_ms)
    committing.commit(there, group, ready.positions, str(region), lambda: None)
    return committing.before_and_after(group, ready, before, there.positions(group), now_ms)
