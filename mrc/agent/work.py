"""What a step of a move has at hand: its plan, the agent's reach, a deadline, and how it waits.

Every act of a step is preceded by a check of the lease (`Work.lead`); every wait ends at the step's deadline or when a person has
asked to abort.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from mrc.agent.estate import Estate
from mrc.core.errors import MrcError
from mrc.core.failover.measured import Rereads
from mrc.core.failover.plan import Plan, PlanStep
from mrc.core.inventory import Inventory, Position
from mrc.core.model import Flow, GroupId, Offset, TopicPartition
from mrc.core.translation.sight import Sights
from mrc.core.views import FindingView
from mrc.ports import Check, Seen

T = TypeVar("T")


class Positions(Protocol):
    """What the capture of the flow source -> target knows (`mrc.agent.capture`)."""

    def final_positions(self, *, source_alive: bool, deadline_s: float) -> dict[GroupId, dict[TopicPartition, Position]]:
        """Return the target position of every group on every partition, now that the flow has ended.

        Raises ``NOT_VERIFIED`` when the answer is not ready by the deadline.
        """

    @property
    def rereads(self) -> Rereads:
        """What groups read again at most, by the last `final_positions`."""

    @property
    def sights(self) -> Sights:
        """How the flow's logs are looked at."""

    def behind(self) -> str:
        """Return why positions could not be translated soon after the fence; empty where they could."""

    def obstacles(self) -> list[FindingView]:
        """Return what was noticed that forbids a planned move."""

    def standby_positions(self) -> dict[GroupId, dict[TopicPartition, Position]]:
        """Return every group's safe target position, as captured; partitions without one are absent."""

    def source_topic_ids(self) -> dict[str, str]:
        """Return the ids of the source's topics as last seen; absent where nobody knows."""

    def target_topic_ids(self) -> dict[str, str]:
        """Return the ids of the target's topics as last seen, under their names in the source."""

    def last_mirrored(self) -> dict[TopicPartition, int]:
        """Return, per source partition, the offset of the last record known to be mirrored; absent where none is known."""


@dataclass
class Recent:
    """What an agent has seen in the execution that it carries, so that it need not ask twice. Another one begins with nothing.

    Attributes:
        tail: where the source's logs ended, and the last records to copy then; None while nobody has looked.
        still_since_s: when the look began that last found the source fenced and still; monotonic.
    """

    tail: tuple[dict[TopicPartition, Offset], dict[TopicPartition, Seen | None]] | None = None
    still_since_s: float = float("-inf")


@dataclass(frozen=True)
class Work:
    """One effect's surroundings.

    Attributes:
        deadline_s: by the estate's monotonic clock.
        interrupted: a person has asked to abort: waits end early.
    """

    estate: Estate
    plan: Plan
    step: PlanStep
    facts: Mapping[str, str]
    deadline_s: float
    positions: Positions
    observe: Callable[[], Inventory]
    interrupted: Callable[[], bool]
    recent: Recent

    def lead(self) -> Check:
        """Check the lease; see `Leadership.check`."""
        return self.estate.leadership.check()

    @property
    def forward(self) -> Flow:
        """The flow that the move ends."""
        return Flow(self.plan.source, self.plan.target)

    @property
    def flows_stay(self) -> bool:
        """Whether both flows run always, whatever moves: under the default policy none is stopped, set or turned."""
        return self.estate.unit.policy == "default"

    def mirrors(self) -> dict[TopicPartition, TopicPartition]:
        """Return, by the names of the source, every mirrored partition of the target. Raises ``UNKNOWN_TOPIC``."""
        unit = self.estate.unit
        names = {name: topic for topic, name in unit.counterparts(self.plan.source).items() if topic in unit.topics}
        found = [tp for tp in self.estate.read_partitions(self.plan.target) if tp.topic in names]
        return {TopicPartition(names[tp.topic], tp.partition): tp for tp in found}

    def wait(self, done: Callable[[], bool], otherwise: Callable[[], MrcError], *, every_s: float = 0.05) -> None:
        """Poll until ``done``; raise ``otherwise()`` at the deadline or when interrupted."""
        held = False

        def settled() -> bool:
            nonlocal held
            held = done()
            return held or self.interrupted()

        self.estate.wait_until(settled, self.deadline_s, every_s=every_s)
        if not held:
            raise otherwise()

    def wait_for(
        self, require: Callable[[], T], *, passes: Callable[[MrcError], bool] = lambda error: error.retryable, every_s: float = 0.05
    ) -> T:
        """Return what ``require`` returns, as soon as it raises nothing; as `wait`, and then raise what it raised last.

        Args:
            passes: which errors may pass by themselves; any other ends the wait.
        """
        found: list[T] = []
        last: list[MrcError] = []

        def done() -> bool:
            try:
                found[:] = [require()]
            except MrcError as error:
                if not passes(error):
                    raise
                last[:] = [error]
            return bool(found)

        self.wait(done, lambda: last[0], every_s=every_s)
        return found[0]


class Step(NamedTuple):
    """The three functions of an action. ``do`` answers facts, ``verify`` and ``undo`` answer evidence."""

    do: Callable[[Work], dict[str, str]]
    verify: Callable[[Work], str]
    undo: Callable[[Work], str] | None = None
