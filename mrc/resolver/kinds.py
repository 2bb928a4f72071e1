"""What is resolved: a kind of entity, its topic, and the names of all topics around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mrc.core.conflict.entity import Rules
from mrc.core.errors import MrcError
from mrc.core.model import Region, Value, target_topic

WATERMARKS = "mrc.watermarks."
"""MirrorMaker has to copy these topics, so their names do not end in ``.internal``."""


class Place(NamedTuple):
    """Where something is read in a record: ``key``, ``header`` with a name, or ``json`` with a path.

    Attributes:
        field: the one field of the value that the path leads to; empty: it is deeper, or elsewhere.
    """

    kind: str
    path: tuple[str, ...] = ()
    field: str = ""


def place(text: str) -> Place:
    """Return a place as rules files write it: ``key``, ``header:NAME``, ``json:$.field.field``."""
    kind, _, rest = text.partition(":")
    if kind == "json":
        path = tuple(rest.removeprefix("$.").split("."))
        return Place(kind, path, path[0] if len(path) == 1 else "")
    return Place(kind, (rest,) if rest else ())


class Kind(Value, frozen=True):
    """A kind of entity, whose events are in one topic.

    Attributes:
        name: of the kind.
        topic: by its name in the region that writes there.
        type: where an event's type is.
        fields: where rules find what they look at.
        rules: ready to be applied.
    """

    name: str
    topic: str
    type: Place
    fields: Mapping[str, Place]
    rules: Rules

    @property
    def regions(self) -> tuple[Region, ...]:
        """All regions, in the order in which ties end."""
        return self.rules.set.regions


def kind_of(topic: str, rules: Rules) -> Kind:
    """Return the kind of entity whose events are in ``topic`` and are read and decided as ``rules`` say."""
    said = rules.set
    return Kind(said.entity, topic, place(said.type), {name: place(text) for name, text in said.fields.items()}, rules)


class Topics(Value, frozen=True):
    """The topics of one kind, by their names in one region.

    Attributes:
        events: per region, where its events are read here.
        marks: per region, where its marks are read here.
    """

    here: Region
    topic: str
    events: Mapping[Region, str]
    marks: Mapping[Region, str]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Everything that is read, the region's own first."""
        return (*self.events.values(), *self.marks.values())

    @property
    def own_marks(self) -> str:
        """Where this region's marks are written."""
        return f"{WATERMARKS}{self.topic}"

    @property
    def resolved(self) -> str:
        """What stands, by entity."""
        return f"mrc.resolved.{self.topic}"

    @property
    def conflicts(self) -> str:
        """Every final conflict."""
        return f"mrc.conflicts.{self.topic}"

    @property
    def compensations(self) -> str:
        """What losing events ask for."""
        return f"mrc.compensations.{self.topic}"

    @property
    def dead_letters(self) -> str:
        """What could not be resolved, with the reason."""
        return f"mrc.dead-letters.{self.topic}"

    @property
    def changelog(self) -> str:
        """The state."""
        return f"mrc.changelog.{self.topic}.internal"

    @property
    def made(self) -> dict[str, dict[str, str]]:
        """The topics that the resolver makes where they are missing, with their settings."""
        kept = {"cleanup.policy": "delete", "retention.ms": str(30 * 86_400_000), "max.message.bytes": str(RECORD_BYTES_MAX)}
        compacted = {"cleanup.policy": "compact", "max.message.bytes": str(RECORD_BYTES_MAX)}
        return {
            self.own_marks: {"cleanup.policy": "delete", "retention.ms": str(30 * 86_400_000)},
            self.resolved: compacted,
            self.conflicts: kept,
            self.compensations: kept,
            self.dead_letters: kept,
            self.changelog: compacted,
        }


RECORD_BYTES_MAX = 8 << 20
"""Of what the resolver writes: an entity's state holds the last event of every region."""


def topics(kind: Kind, here: Region) -> Topics:
    """Return a kind's topics as ``here`` sees them."""
    regions = [here, *(region for region in kind.regions if region != here)]
    marks = f"{WATERMARKS}{kind.topic}"

    def seen(region: Region, topic: str) -> str:
        return topic if region == here else target_topic("default", region, topic)

    return Topics(here, kind.topic, {r: seen(r, kind.topic) for r in regions}, {r: seen(r, marks) for r in regions})


def check_timestamps(kind: Kind, names: Topics, types: Mapping[str, str]) -> None:
    """Check that copies can be told by their timestamps, where that is needed.

    Args:
        kind: how its events are told from one another.
        names: its topics.
        types: the setting ``message.timestamp.type`` of each topic that exists.

    Raises:
        MrcError: ``TIMESTAMPS_DIFFER``.
    """
    copies = [name for region, name in names.events.items() if region != names.here]
    wrong = [name for name in copies if types.get(name) == "LogAppendTime"]
    if wrong and kind.rules.set.detection == "watermark":
        message = f"the broker stamps the records of {', '.join(wrong)} itself, and marks list them with the timestamps of their originals"
        raise MrcError("TIMESTAMPS_DIFFER", message, where=names.here)


def check_partitions(kind: Kind, names: Topics, counts: Mapping[str, int]) -> None:
    """Check that a kind's topics fit together.

    Args:
        kind: for the words.
        names: its topics.
        counts: the number of partitions of each topic that exists; those that the resolver makes are among them.

    Raises:
        MrcError: ``TOPICS_MISSING``, retryable; ``PARTITIONS_DIFFER``.
    """
    missing = [name for name in names.inputs if name not in counts]
    if missing:
        raise MrcError("TOPICS_MISSING", f"there is no {', '.join(missing)} yet", where=names.here, retryable=True)
    wanted = counts[names.topic]
    wrong = [f"{name} has {counts[name]}" for name in (*names.inputs, *names.made) if counts.get(name, wanted) != wanted]
    if wrong:
        message = (
            f"{names.topic} has {wanted} partitions, {', '.join(wrong)}: the events of one {kind.name} would be in partitions of "
            "different numbers, and what was decided in the one would be unknown in the other"
        )
        raise MrcError("PARTITIONS_DIFFER", message, where=names.here)
