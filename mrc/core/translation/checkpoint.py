"""Checkpoints: one group's position on one partition, translated. Kept in a compacted topic of the target cluster.

A checkpoint is there when the source is gone, so it carries everything that an answer needs: the position in the source, the
translation, and the *floor*: the last safe target offset, which stands while a later position cannot be answered yet.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mrc.core.model import GroupId, Written, decode, encode
from mrc.core.translation.offset_map import Bounded, Exact, Translation


class CheckpointKey(Written, frozen=True, array_like=True):
    """Key of the record: the group, and the topic by its name in the source."""

    group: GroupId
    topic: str
    partition: int


class Checkpoint(Written, frozen=True):
    """Value of the record.

    Attributes:
        source_offset: committed position in the source.
        metadata: what the consumer stored with it, byte for byte.
        translation: the answer for ``source_offset``.
        floor: last safe target offset, -1 where there never was one; with an answer it is the answer.
        captured_at_ms: when the position was read in the source.
        topic_id: the source topic's id; a checkpoint of another topic with the same name says nothing.
        target_id: the target topic's id: ``floor`` is an offset of that topic and of no other.
    """

    source_offset: int
    metadata: str
    translation: Translation
    floor: int
    captured_at_ms: int
    topic_id: str
    target_id: str = ""
    version: Literal[1] = 1

    def floor_in(self, target_id: str) -> int:
        """Return the floor in the target topic with this id; -1 where it was of another one."""
        return self.floor if self.target_id == target_id else -1


def advance(
    before: Checkpoint | None,
    *,
    source_offset: int,
    metadata: str,
    translation: Translation,
    now_ms: int,
    topic_id: str,
    target_id: str,
) -> Checkpoint:
    """Return the checkpoint for a position that was just read.

    While it cannot be answered the earlier floor stands, unless the group has gone backwards: then nothing is safe but an answer.
    """
    if isinstance(translation, Exact | Bounded):
        floor: int = translation.offset
    elif before is None or before.topic_id != topic_id or before.source_offset > source_offset:
        floor = -1
    else:
        floor = before.floor_in(target_id)
    return Checkpoint(source_offset, metadata, translation, floor, now_ms, topic_id, target_id)


def encode_checkpoint(key: CheckpointKey, checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """Return the record's key and value."""
    return encode(key), encode(checkpoint)


def decode_checkpoints(entries: dict[bytes, bytes]) -> tuple[dict[CheckpointKey, Checkpoint], list[bytes]]:
    """Return the checkpoints of a topic's last values, and the keys of those that cannot be read (they are left alone)."""
    found: dict[CheckpointKey, Checkpoint] = {}
    garbled: list[bytes] = []
    for raw_key, raw in entries.items():
        try:
            found[decode(raw_key, CheckpointKey)] = decode(raw, Checkpoint)
        except (msgspec.DecodeError, msgspec.ValidationError):
            garbled.append(raw_key)
    return found, garbled
