"""A checkpoint is proved again from the logs alone, and one that they contradict is told."""

from __future__ import annotations

import msgspec

from mrc.core.model import TopicPartition
from mrc.core.views import CheckpointView, VerifiedView
from mrc.sim.world import EAST, WEST
from tests.sim.estate import Estate


def settled() -> Estate:
    estate = Estate()
    estate.settle(30)
    estate.producing, estate.consuming = False, {}
    estate.settle(10)
    return estate


def verdicts(estate: Estate) -> list[VerifiedView]:
    capture = estate.leader(WEST).coordinator.capture
    return [capture.verify(checkpoint) for checkpoint in capture.snapshot().checkpoints]


def moved(checkpoint: CheckpointView, by: int) -> CheckpointView:
    translation = msgspec.structs.replace(checkpoint.translation, offset=checkpoint.translation.offset + by)
    return msgspec.structs.replace(checkpoint, translation=translation)


def test_what_the_logs_say_agrees_and_anything_else_does_not() -> None:
    estate = settled()
    found = verdicts(estate)
    assert {one.verdict for one in found} == {"agrees"}
    capture = estate.leader(WEST).coordinator.capture
    inside = [one.checkpoint for one in found if one.checkpoint.translation.offset > 1]
    assert inside
    assert {capture.verify(moved(checkpoint, -1)).verdict for checkpoint in inside} == {"disagrees"}


def test_a_compacted_log_agrees_with_one_that_is_not() -> None:
    estate = settled()
    for region in (EAST, WEST):
        for topic in ("orders", "payments"):
            estate.world.clusters[region].contents[topic].config["cleanup.policy"] = "compact"
    estate.settle(110)  # the agent has looked at the topics again
    for checkpoint in [one.checkpoint for one in verdicts(estate)]:
        log = estate.world.clusters[EAST].log(TopicPartition(checkpoint.topic, checkpoint.partition))
        log.entries = [entry for entry in log.entries if entry.offset != checkpoint.source_offset or entry.offset == log.end - 1]
    found = verdicts(estate)
    assert {one.verdict for one in found} == {"agrees"}
    assert any("compacted away" in one.detail for one in found)
