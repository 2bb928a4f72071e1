"""What MirrorMaker 2 writes about offsets, and what it would answer: offset syncs, checkpoints, the topics that hold them.

An *offset sync* names one copied record: its offset in the source and in the target. MM2's checkpoint task keeps up to 64 of a
partition's syncs, denser towards the newest one, and answers a position with the newest of these at or below it, plus one.
Formats and rules: Kafka's connect/mirror, `OffsetSync`, `OffsetSyncStore`, `Checkpoint`, `DefaultReplicationPolicy`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from mrc.core.model import GroupId, Region, TopicPartition

SLOTS = 64
"""How many syncs of a partition a checkpoint task keeps at most."""

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64_PAIR = struct.Struct(">qq")
_CHECKPOINT_HEAD = struct.Struct(">hqq")
_CHECKPOINT_VERSION = 0


class Sync(NamedTuple):
    """One copied record: its offset in the source and in the target."""

    source: int
    target: int


class Mm2Checkpoint(NamedTuple):
    """What MM2 has translated last for a group on a partition: two positions (next record to read)."""

    source: int
    target: int
    metadata: str


class Names(NamedTuple):
    """Where MM2 keeps what it knows of a flow.

    Attributes:
        syncs: topic of the offset syncs, in the region ``syncs_in``.
        checkpoints: topic of the checkpoints, in the target.
    """

    syncs: str
    syncs_in: Literal["source", "target"]
    checkpoints: str


def names(source: Region, target: Region, connector: Mapping[str, str]) -> Names:
    """Return the topics of a flow by the settings of its source connector.

    What a setting leaves out has MM2's default: syncs lie in the source, and names are separated by dots.
    """
    here = connector.get("source.cluster.alias") or source
    there = connector.get("target.cluster.alias") or target
    dotted = connector.get("replication.policy.internal.topic.separator.enabled", "true").lower() == "false"
    separator = "." if dotted else connector.get("replication.policy.separator", ".")
    in_target = connector.get("offset-syncs.topic.location", "source").lower() == "target"
    other = here if in_target else there  # the topic is named after the cluster that it does not lie in
    return Names(
        syncs=separator.join(("mm2-offset-syncs", other, "internal")),
        syncs_in="target" if in_target else "source",
        checkpoints=separator.join((here, "checkpoints", "internal")),
    )


# ---------------------------------------------------------------- formats


def decode_sync(key: bytes | None, value: bytes | None) -> tuple[TopicPartition, Sync] | None:
    """Return a record of the syncs topic, the partition by its name in the source; None where it is not one."""
    if key is None or value is None:
        return None
    try:
        topic, at = _string(key, 0)
        (partition,) = _INT32.unpack(key[at:])
        sync = Sync(*_INT64_PAIR.unpack(value))
    except (struct.error, UnicodeDecodeError):
        return None
    return TopicPartition(topic, partition), sync


def encode_sync(tp: TopicPartition, sync: Sync) -> tuple[bytes, bytes]:
    """Return the record that `decode_sync` reads."""
    return _text(tp.topic) + _INT32.pack(tp.partition), _INT64_PAIR.pack(*sync)


def decode_mm2_checkpoint(key: bytes, value: bytes) -> tuple[GroupId, TopicPartition, Mm2Checkpoint] | None:
    """Return a record of the checkpoints topic, the partition by its name in the target; None where it is not one."""
    try:
        group, at = _string(key, 0)
        topic, at = _string(key, at)
        (partition,) = _INT32.unpack(key[at:])
        version, source, target = _CHECKPOINT_HEAD.unpack_from(value)
        metadata, _ = _string(value, _CHECKPOINT_HEAD.size)
    except (struct.error, UnicodeDecodeError):
        return None
    if version != _CHECKPOINT_VERSION:
        return None
    return GroupId(group), TopicPartition(topic, partition), Mm2Checkpoint(source, target, metadata)


def encode_mm2_checkpoint(group: GroupId, tp: TopicPartition, checkpoint: Mm2Checkpoint) -> tuple[bytes, bytes]:
    """Return the record that `decode_mm2_checkpoint` reads."""
    key = _text(group) + _text(tp.topic) + _INT32.pack(tp.partition)
    head = _CHECKPOINT_HEAD.pack(_CHECKPOINT_VERSION, checkpoint.source, checkpoint.target)
    return key, head + _text(checkpoint.metadata)


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _INT16.unpack_from(data, at)
    begin = at + _INT16.size
    if length < 0 or begin + length > len(data):
        raise struct.error("a string is longer than its record")
    return data[begin : begin + length].decode(), begin + length


def _text(text: str) -> bytes:
    raw = text.encode()
    return _INT16.pack(len(raw)) + raw


# ---------------------------------------------------------------- answering as MM2 does


class Neighbours(NamedTuple):
    """The syncs around a source position: the last ones at or below it and the first ones above, each in order of their offsets."""

    at_or_below: tuple[Sync, ...]
    above: tuple[Sync, ...]


def neighbours(syncs: Sequence[Sync], offset: int, count: int) -> Neighbours:
    """Return up to ``count`` syncs on either side of a source position.

    Args:
        syncs: one partition's, in the order in which they were written. Those before the last time that MM2 began again further
            back say nothing any more and are left out.
    """
    valid = sorted(_since_rewind(syncs))
    below = [sync for sync in valid if sync.source <= offset]
    above = [sync for sync in valid if sync.source > offset]
    return Neighbours(tuple(below[-count:]), tuple(above[:count]))


def _since_rewind(syncs: Sequence[Sync]) -> Sequence[Sync]:
    begin = 0
    for at in range(1, len(syncs)):
        if syncs[at].source < syncs[at - 1].source:
            begin = at
    return syncs[begin:]


class Mm2Answer(NamedTuple):
    """What MM2 answers for a source position.

    Attributes:
        offset: the position in the target; None: it writes none.
        sync: the sync that the answer rests on; None where there is none at or below the position.
        kept: how many different syncs the task keeps.
    """

    offset: int | None
    sync: Sync | None
    kept: int


def mm2_answer(syncs: Iterable[Sync], offset: int) -> Mm2Answer:
    """Return what a checkpoint task answers that has run since the first of these syncs.

    One that was started later keeps the newest of the syncs that were there, and answers further back with nothing.

    Args:
        syncs: one partition's, in the order in which they were written.
    """
    store = SyncStore()
    for sync in syncs:
        store.add(sync)
    kept = store.kept()
    below = next((sync for sync in kept if sync.source <= offset), None)
    if below is None:
        return Mm2Answer(None, None, len(kept))
    return Mm2Answer(below.target + (below.source != offset), below, len(kept))


class SyncStore:
    """The syncs of one partition that a checkpoint task keeps: slot 0 has the newest, later slots ever older ones.

    Two rules bind each slot to the one before it, both in source offsets: it must not lie too far back (`_near`), so that the
    spacing stays exponential, and it must lie far enough back (`_apart`), so that as many different syncs as possible are kept.
    """

    def __init__(self) -> None:
        self._slots: list[Sync] = []

    def kept(self) -> list[Sync]:
        """Return the different syncs, newest first."""
        return list(dict.fromkeys(self._slots))

    def add(self, sync: Sync) -> None:
        """Take the next sync; one further back than the newest makes all others void."""
        if not self._slots or sync.source < self._slots[0].source:
            self._slots = [sync] * SLOTS
            return
        former = tuple(self._slots)
        self._slots[0] = candidate = sync
        at = 0
        for slot in range(1, SLOTS):
            candidate, at = self._candidate(former, slot, candidate, at)
            if _near(self._slots[slot - 1], self._slots[slot], slot):
                return  # what this slot holds still fits, and so does everything behind it
            self._slots[slot] = candidate

    def _candidate(self, former: Sequence[Sync], slot: int, candidate: Sync, at: int) -> tuple[Sync, int]:
        """Return the sync that may go into ``slot``, preferably one that was kept before, and which former slot is looked at next."""
        newer = self._slots[slot - 1]
        while True:
            old = former[at]
            apart = _apart(newer, old, slot - 1)
            fits = apart and _near(newer, old, slot) and (slot + 1 == SLOTS or _apart(old, self._slots[slot + 1], slot))
            if fits:
                candidate = old
            useless = not apart or (at + 1 < SLOTS and former[at + 1] is old)
            if fits or useless:
                at += 1
            if not useless or at >= slot:
                return candidate, at


def _near(newer: Sync, older: Sync, slot: int) -> bool:
    """Whether ``older`` may stand in ``slot`` right behind ``newer``."""
    return newer is older or newer.source - older.source <= 2**slot - 2 ** (slot - 1)


def _apart(newer: Sync, older: Sync, slot: int) -> bool:
    """Whether ``older`` lies far enough behind ``newer``, which stands in ``slot``."""
    return newer is older or newer.source - older.source >= 2 ** max(slot - 2, 0)
