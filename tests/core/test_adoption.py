"""Settings of connectors that are split, narrowed, given back and turned round: pure, and harmless when repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrc.core.failover.adoption import EXCLUDE_DEFAULT, Addresses, covered, narrowed, reversed_settings, split_off, widened
from mrc.core.inventory import Unit
from mrc.core.model import Flow, Region

EAST, WEST = Region("east"), Region("west")
TOPICS = ("orders", "a.b")
CONFIG = {
    "name": "mm2",
    "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
    "source.cluster.alias": "east",
    "target.cluster.alias": "west",
    "source.cluster.bootstrap.servers": "east:9093",
    "target.cluster.bootstrap.servers": "west:9092",
    "source.cluster.sasl.jaas.config": "for east",
    "target.cluster.sasl.jaas.config": "for west",
    "source.consumer.isolation.level": "read_committed",
    "topics": ".*",
}


def unit(*topics: str) -> Unit:
    return Unit(
        name="orders",
        mode="active-passive",
        policy="identity",
        regions=(EAST, WEST),
        topics=topics or TOPICS,
        groups=(),
        writers=(),
        readers=(),
        exempt=(),
        probe="",
        connectors={Flow(EAST, WEST): "there", Flow(WEST, EAST): "back"},
    )


def test_what_one_connector_leaves_out_the_other_copies_and_nothing_is_copied_by_both() -> None:
    everything = ("orders", "a.b", "axb", "others", "mrc.x.internal", "__consumer_offsets", "heartbeats")
    assert covered(CONFIG, everything) == {"orders", "a.b", "axb", "others"}
    assert covered(split_off(CONFIG, unit(), "there"), everything) == {"orders", "a.b"}
    assert covered(narrowed(CONFIG, unit()), everything) == {"axb", "others"}


def test_two_that_copy_heartbeats_would_copy_each_twice() -> None:
    assert split_off(CONFIG, unit(), "there")["heartbeats.replication.enabled"] == "false"


excluded = st.none() | st.lists(st.sampled_from(["orders", r"a\.b", "theirs", "__.*"]), max_size=3, unique=True).map(",".join)


@given(exclude=excluded)
def test_narrowing_and_widening_may_be_repeated_and_end_where_it_began(exclude: str | None) -> None:
    before = CONFIG if exclude is None else {**CONFIG, "topics.exclude": exclude}
    less = narrowed(before, unit())
    assert narrowed(less, unit()) == less
    noted = {"topics.exclude": before.get("topics.exclude")}
    back = widened(less, unit(), noted)
    assert back == before
    assert widened(back, unit(), noted) == back


def test_what_another_group_left_out_meanwhile_stays_left_out() -> None:
    less = narrowed(narrowed(CONFIG, unit("orders")), unit("payments"))
    assert widened(less, unit("orders"), {"topics.exclude": None})["topics.exclude"] == f"{EXCLUDE_DEFAULT},payments"


def test_the_way_back_has_its_ends_exchanged_and_each_is_reached_from_the_other_connect() -> None:
    addresses = {EAST: Addresses("east:9092", "east:9093"), WEST: Addresses("west:9092", "west:9093")}
    there = split_off(CONFIG, unit(), "there")
    back = reversed_settings(there, unit(), "back", addresses, Flow(WEST, EAST))
    expected = {
        "name": "back",
        "source.cluster.alias": "west",
        "target.cluster.alias": "east",
        "source.cluster.bootstrap.servers": "west:9093",
        "target.cluster.bootstrap.servers": "east:9092",
        "source.cluster.sasl.jaas.config": "for west",
        "target.cluster.sasl.jaas.config": "for east",
    }
    assert {key: back[key] for key in expected} == expected
    assert back.keys() == there.keys()


@pytest.mark.parametrize("topic", ["orders", "others"])
def test_a_connector_with_a_list_is_narrowed_as_one_with_a_pattern(topic: str) -> None:
    listed = {**CONFIG, "topics": "orders, others"}
    assert covered(narrowed(listed, unit()), [topic]) == ({"others"} & {topic})
