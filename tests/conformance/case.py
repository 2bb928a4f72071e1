"""What a case is: a topic, what happens to it in rounds, where groups stand in the end, what mrc should say of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.conformance.logs import Identify, plainly
from tests.conformance.oracle import Log
from tests.conformance.steps import Step
from tests.conformance.want import Want

if TYPE_CHECKING:
    from tests.conformance.running import Run

Variant = Literal["plain", "exactly-once"]
VARIANTS: tuple[Variant, ...] = ("plain", "exactly-once")
RUN: tuple[Variant, ...] = VARIANTS if os.environ.get("MRC_CONFORMANCE") == "all" else ("plain",)
"""What a run of the tests tries: both variants take eight minutes on two free cores, and twice that on busy ones."""

REPLICATION_GROUPS: Mapping[str, str] = {
    "uncommitted": "uncommitted",
    "uncommitted-late": "uncommitted-late",
    "renamed": "renamed",
    "values": "changed",
    "headers": "changed",
    "filter": "filtered",
}
"""Connectors whose topics have a replication group beside the sandbox's ``orders``: mrc is to know their settings, or to be left alone
by the topics of others that are made anew or grow."""

At = int | Callable[[Log], int]
"""An offset, or where it is in the source's log once all has happened."""


def end(log: Log) -> int:
    """The log's end."""
    return log.end


def middle(log: Log) -> int:
    """The record in the middle of what is there."""
    return log.events[len(log.events) // 2].offset


def first(log: Log) -> int:
    """The first record that is there."""
    return log.events[0].offset


@dataclass(frozen=True)
class Place:
    """A committed position of the case's group.

    Attributes:
        label: unique in the case.
        partition: as the place's number in the case where left out.
        xfail: why mrc does not do it yet, by variant.
    """

    label: str
    at: At
    want: Want
    partition: int | None = None
    xfail: Mapping[Variant, str] = field(default_factory=dict)
    variants: tuple[Variant, ...] = VARIANTS


@dataclass(frozen=True)
class Check:
    """Something else that must hold once all has happened. Raises AssertionError where it does not."""

    label: str
    holds: Callable[[Run, Case], None]
    xfail: Mapping[Variant, str] = field(default_factory=dict)
    variants: tuple[Variant, ...] = VARIANTS


@dataclass(frozen=True)
class Case:
    """One topic with its groups.

    Attributes:
        name: a scenario's number, or an edge case, as in the reference.
        about: a line for people.
        rounds: steps before MirrorMaker runs; then, in turns with all other cases, while it and the agents run.
        places: positions, committed when the last round is over.
        connector: of `CONNECTORS`; ``none``: nothing copies the topic.
        partitions: of the source; as many as there are places where left out.
        source, target: settings of the topic; a target that is not given is made by MirrorMaker.
        partitions_there: of a target that is made beforehand.
        isolation: what MirrorMaker sees of the source.
        identify, identify_there: how the oracle finds an event's id on either side.
        alike: records have the same id, and are told apart by their order.
        members: a kind of consumer that commits, and stays a member of its group.
        metadata: committed with the positions.
        anew: a topic was made anew, so that earlier answers speak of other logs.
        alike_foreign: somebody else writes what looks like the source's own records, so that only skipping can be judged.
        sweep_xfail: why some offset of the logs is translated wrongly, by variant.
    """

    name: str
    about: str
    rounds: tuple[tuple[Step, ...], ...]
    places: tuple[Place, ...]
    connector: str = "main"
    partitions: int | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, str] | None = None
    partitions_there: int | None = None
    isolation: str = "read_committed"
    identify: Identify = plainly
    identify_there: Identify | None = None
    alike: bool = False
    alike_foreign: bool = False
    members: str = ""
    metadata: str = ""
    anew: bool = False
    checks: tuple[Check, ...] = ()
    sweep_xfail: Mapping[Variant, str] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        """The topic's name in the source."""
        return f"conf-{self.name}"

    @property
    def group(self) -> str:
        """The group's id."""
        return f"test-{self.name}"

    @property
    def replication_group(self) -> str:
        """The replication group that looks after the topic."""
        return REPLICATION_GROUPS.get(self.connector, "orders")

    @property
    def mirror(self) -> str:
        """The topic's name in the target."""
        return f"east.{self.topic}" if self.replication_group == "renamed" else self.topic

    @property
    def width(self) -> int:
        """How many partitions the source topic begins with."""
        return self.partitions or len(self.places)


def both(reason: str) -> dict[Variant, str]:
    """The same reason in both variants."""
    return dict.fromkeys(VARIANTS, reason)
