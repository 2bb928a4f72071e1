"""How the two logs of a flow are looked at: which records are visible, and whether their timestamps count.

A record is visible when MirrorMaker could have copied it, so the source is read with MM2's own isolation level; the target's
copies count only once their transaction is committed. Timestamps do not count where one side stamps records on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from mrc.core.inventory import TopicInfo
from mrc.core.model import Value

Isolation = Literal["read_committed", "read_uncommitted"]


class Sight(Value, frozen=True):
    """How one cluster's logs are read.

    Attributes:
        isolation: whether records of open and aborted transactions are visible.
        unstamped: topics, by their name in that cluster, whose records are compared without their timestamps.
    """

    isolation: Isolation = "read_committed"
    unstamped: frozenset[str] = frozenset()


class Sights(NamedTuple):
    """Both sides of a flow."""

    source: Sight
    target: Sight


def mm2_isolation(connector: Mapping[str, str]) -> Isolation:
    """Return the isolation level with which a MirrorSourceConnector reads its source.

    Source: `MirrorConnectorConfig.sourceConsumerConfig`; without a setting Kafka's consumer default holds. What the Connect
    worker's own `consumer.` settings say does not matter. Nothing known of the connector gives committed records: good enough
    to show a record, never to compare.
    """
    if not connector:
        return "read_committed"
    said = connector.get("source.consumer.isolation.level") or connector.get("consumer.isolation.level")
    return "read_committed" if said == "read_committed" else "read_uncommitted"


def sights(names: Mapping[str, str], here: Mapping[str, TopicInfo], there: Mapping[str, TopicInfo], connector: Mapping[str, str]) -> Sights:
    """Return how to look at a flow.

    Args:
        names: topics of the source, and the target's topics with the same records.
        here, there: the topics of the source and of the target by their names there; a side that cannot be asked is empty.
        connector: settings of the flow's source connector.
    """
    unstamped = frozenset(topic for topic, name in names.items() if _stamps(here.get(topic)) or _stamps(there.get(name)))
    return Sights(
        Sight(mm2_isolation(connector), unstamped),
        Sight("read_committed", frozenset(names[topic] for topic in unstamped)),
    )


def _stamps(info: TopicInfo | None) -> bool:
    """Whether the broker replaces a record's timestamp."""
    return info is not None and info.config.get("message.timestamp.type") == "LogAppendTime"
