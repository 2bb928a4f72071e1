"""A guessed configuration is a good configuration, and says what was guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from mrc.config import Settings, check
from mrc.config.guess import Guess, Login, SeenRegion, guess
from mrc.core.inventory import Binding

LOGIN = Login("SASL_PLAINTEXT", "SCRAM-SHA-512", "mrc", "secret", None)
IDENTITY = "org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
JAAS = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="mm2" password="x";'


def allow(principal: str, operation: str, resource: Literal["topic", "group", "cluster"], name: str) -> Binding:
    return Binding(resource, name, "literal", principal, operation, "allow")


EAST = SeenRegion(
    bootstrap="e:9092",
    connect_url="http://e:8083",
    topics=("orders", "payments", "stock", "__consumer_offsets", "mm2-offset-syncs.west.internal", "heartbeats"),
    groups={"billing": frozenset({"orders"}), "counting": frozenset({"stock"}), "connect-x": frozenset({"orders"})},
    bindings=frozenset(
        {
            allow("User:producer", "write", "topic", "orders"),
            allow("User:mm2", "write", "topic", "orders"),
            allow("User:stocker", "write", "topic", "stock"),
            allow("User:consumer", "read", "group", "billing"),
            allow("User:admin", "all", "cluster", "kafka-cluster"),
            allow("User:admin", "all", "topic", "*"),
            allow("User:*", "write", "topic", "orders"),
        }
    ),
    mirrors={"back": {"source.cluster.alias": "west", "topics": "orders,pay.*", "replication.policy.class": IDENTITY}},
)
WEST = SeenRegion(
    bootstrap="w:9092",
    connect_url="http://w:8083",
    topics=("orders", "payments"),
    groups={},
    bindings=frozenset(),
    mirrors={
        "there": {
            "source.cluster.alias": "east",
            "topics": "orders,pay.*",
            "replication.policy.class": IDENTITY,
            "source.cluster.sasl.jaas.config": JAAS,
        }
    },
)


def settings_of(made: Guess, folder: Path) -> Settings:
    (folder / "secret").write_text("x")
    path = folder / "mrc.yaml"
    path.write_text(made.text)
    settings, problems = check(path)
    assert problems == ()
    assert settings is not None
    return settings


def test_what_can_be_seen_is_taken_over(tmp_path: Path) -> None:
    group = settings_of(guess({"east": EAST, "west": WEST}, LOGIN, "zk:2181"), tmp_path).replication_group()
    assert (group.policy, group.topics, group.groups) == ("identity", ("orders", "payments"), ("billing",))
    assert [(flow.source, flow.target, flow.connector) for flow in group.flows] == [("east", "west", "there"), ("west", "east", "back")]
    assert group.principals.writers == ("User:producer",)
    assert group.principals.readers == ("User:consumer",)
    assert group.principals.exempt == ("User:admin", "User:mrc")
    assert group.principals.replicators == ("User:mm2",)


def test_under_the_default_policy_copies_are_not_taken_for_topics(tmp_path: Path) -> None:
    east = msgspec.structs.replace(EAST, topics=("orders", "west.orders"), mirrors={"back": {"source.cluster.alias": "west"}})
    west = msgspec.structs.replace(WEST, topics=("orders", "east.orders"), mirrors={"there": {"source.cluster.alias": "east"}})
    group = settings_of(guess({"east": east, "west": west}, LOGIN, "zk:2181"), tmp_path).replication_group()
    assert (group.policy, group.topics) == ("default", ("orders",))


def test_connectors_with_other_topics_make_another_replication_group(tmp_path: Path) -> None:
    more = {**WEST.mirrors, "stock": {"source.cluster.alias": "east", "topics": "stock", "replication.policy.class": IDENTITY}}
    made = guess({"east": EAST, "west": msgspec.structs.replace(WEST, mirrors=more)}, LOGIN, "zk:2181")
    settings = settings_of(made, tmp_path)
    stock = next(group for group in settings.replication_groups if group.topics == ("stock",))
    assert stock.groups == ("counting",)
    assert {flow.connector for flow in stock.flows} == {"stock", f"mrc.{stock.name}.west-east"}
    assert any("no connector copies west->east" in note for note in made.notes)


def test_whatever_cannot_be_seen_is_noted_and_written_above_the_file() -> None:
    blind = msgspec.structs.replace(EAST, bindings=None, mirrors={})
    made = guess({"east": blind, "west": msgspec.structs.replace(WEST, mirrors={}, bindings=None)}, LOGIN, "zk:2181")
    notes = " ".join(made.notes)
    assert "No MirrorSourceConnector was found" in notes
    assert "ACLs could be listed" in notes
    for note in made.notes:
        assert f"# {note}\n" in made.text
