"""Where a flow has to start and whether it has to run: the record that leading agents reconcile connectors to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mrc.core.model import ActiveRecord, Epoch, Flow, Offset, Policy, TopicPartition, Written


class OldTopic(Written, frozen=True):
    """A topic that is being made: what it has to be like, and the id by which an old one is told from it; empty: there is none."""

    topic_id: str
    partitions: int
    config: dict[str, str]


class FlowStart(Written, frozen=True):
    """One ZooKeeper node per flow: from where the flow has to copy since the epoch in which its source was opened.

    Attributes:
        epoch: the epoch whose opening made this flow the running one.
        positions: next source offset to copy, per topic, index = partition.
        held: the flow has to stand still: the logs that it copies into are being made anew. ``positions`` are those then that it was
            not set to before, empty where it was.
        renewing: which ones, or will be; empty once they are.
        execution: which one holds it; nobody else deletes what it has noted.
        applied: the connector was set to these positions, they were read back, and it was resumed.
    """

    epoch: Epoch
    positions: dict[str, tuple[Offset, ...]]
    applied: bool = False
    held: bool = False
    renewing: dict[str, OldTopic] = {}
    execution: str = ""
    version: Literal[1] = 1

    def offsets(self) -> dict[TopicPartition, Offset]:
        """Return `positions` by partition."""
        return by_partition(self.positions)


def by_partition(positions: Mapping[str, Sequence[Offset]]) -> dict[TopicPartition, Offset]:
    """Return offsets by partition, from those by topic whose index is the partition."""
    return {TopicPartition(topic, p): offset for topic, offsets in positions.items() for p, offset in enumerate(offsets)}


def should_run(record: ActiveRecord, flow: Flow, policy: Policy) -> bool | None:
    """Return whether a flow has to run; None while a move decides it.

    Under the identity policy both flows together would loop for ever, so only the flow out of the active region runs; under
    the default policy both run always.
    """
    if policy == "default":
        return True
    if record.region == flow.target:
        return False
    return True if record.state == "open" else None


def differs(policy: Policy, connector: Mapping[str, str]) -> str:
    """Return how a source connector names copies otherwise than configured; empty where it does not, or is not there.

    Names are told by the two policies that Kafka brings, with the separator that it has by default.
    """
    if not connector:
        return ""
    named = connector.get("replication.policy.class", "DefaultReplicationPolicy")
    if not named.endswith(f"{policy.title()}ReplicationPolicy"):
        return f"the configuration says policy: {policy}, and the connector's replication.policy.class is {named}"
    if policy == "default" and (separator := connector.get("replication.policy.separator", ".")) != ".":
        return f"the connector's replication.policy.separator is {separator!r}, and mrc knows copies by '.' only"
    return ""
