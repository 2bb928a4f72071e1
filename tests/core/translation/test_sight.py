"""How the logs of a flow are looked at follows from the connector's and the topics' settings."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mrc.core.inventory import TopicInfo
from mrc.core.translation.sight import mm2_isolation, sights

NAMES = {"orders": "east.orders", "west.orders": "orders"}


def topics(**stamps: str) -> dict[str, TopicInfo]:
    return {name.replace("_", "."): TopicInfo("id", (1,), {"message.timestamp.type": stamp}) for name, stamp in stamps.items()}


@pytest.mark.parametrize(
    ("connector", "isolation"),
    [
        ({}, "read_committed"),
        ({"topics": "orders"}, "read_uncommitted"),
        ({"consumer.isolation.level": "read_committed"}, "read_committed"),
        ({"consumer.isolation.level": "read_committed", "source.consumer.isolation.level": "read_uncommitted"}, "read_uncommitted"),
        ({"source.consumer.isolation.level": "read_committed"}, "read_committed"),
    ],
)
def test_the_source_is_read_as_mirrormaker_reads_it(connector: Mapping[str, str], isolation: str) -> None:
    assert mm2_isolation(connector) == isolation
    found = sights({}, {}, {}, connector)
    assert (found.source.isolation, found.target.isolation) == (isolation, "read_committed")


def test_timestamps_count_unless_one_side_stamps_by_itself() -> None:
    here = topics(both="CreateTime", here="LogAppendTime", there="CreateTime")
    found = sights({name: name for name in here}, here, topics(both="CreateTime", here="CreateTime", there="LogAppendTime"), {})
    assert found.source.unstamped == found.target.unstamped == {"here", "there"}


def test_under_the_default_policy_topics_go_by_their_names_in_each_cluster() -> None:
    found = sights(NAMES, topics(orders="CreateTime"), topics(east_orders="LogAppendTime", west_orders="LogAppendTime"), {})
    assert found.source.unstamped == {"orders"}
    assert found.target.unstamped == {"east.orders"}


def test_a_side_that_does_not_answer_leaves_the_other_to_decide() -> None:
    assert sights(NAMES, {}, topics(east_orders="LogAppendTime"), {}).source.unstamped == {"orders"}
    assert sights({"orders": "orders"}, topics(orders="LogAppendTime"), {}, {}).target.unstamped == {"orders"}


def test_copies_of_the_targets_own_records_are_looked_at_as_their_originals_are() -> None:
    found = sights(NAMES, topics(orders="CreateTime", west_orders="CreateTime"), topics(orders="LogAppendTime"), {})
    assert found.source.unstamped == {"west.orders"}
    assert found.target.unstamped == {"orders"}
