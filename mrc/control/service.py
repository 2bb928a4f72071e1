"""What the server needs from an agent. Structural: an agent's service, and its dockets, fit by having these methods.

Every method may be called from many threads at once, answers from what the agent has at hand, and raises `MrcError`. A
request that only the leading agent answers is refused with ``NOT_LEADER`` and the leader's ``host:port`` in ``where``,
empty where there is no leader now. ``rg`` is a replication group's name; empty means the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from mrc.core.inventory import Position
from mrc.core.model import TopicPartition
from mrc.core.translation.positions import Place
from mrc.core.views import (
    CheckpointView,
    CommittedView,
    DivergenceView,
    EntryView,
    ExecutionView,
    ExplanationView,
    FlowView,
    ForgottenView,
    GroupOffsetView,
    OffsetDiffView,
    PlanView,
    RecoveryProgressView,
    RecoveryView,
    StatusView,
    TranslatedView,
    TranslationView,
    UnmovableView,
    VerifiedView,
    VersionView,
)
from mrc.resolver.docket import Docket


class Caller(NamedTuple):
    """Who asks.

    Attributes:
        actor: its name.
        check: raises where nobody waits for the answer any more, or the agent is stopping; for whoever takes long.
    """

    actor: str
    check: Callable[[], None]


class Service(Protocol):
    """One agent's answers."""

    def version(self) -> VersionView:
        """Return who answers."""

    def status(self, rg: str) -> StatusView:
        """Return the replication group as this agent sees it, from snapshots."""

    def lag(self, rg: str) -> tuple[FlowView, ...]:
        """Return the flows into this region with their partitions."""

    def checkpoints(self, rg: str, group: str, topic: str) -> tuple[CheckpointView, ...]:
        """Return the checkpoints of the flows into this region; an empty ``group`` or ``topic`` means all."""

    def translate(self, rg: str, source: str, topic: str, partition: int, offset: int) -> TranslationView:
        """Return what stands in the other region for an offset of region ``source``."""

    def verify(self, rg: str, group: str) -> Iterator[VerifiedView]:
        """Yield each checkpoint with what reading both sides said of it."""

    def group_offsets(self, rg: str, group: str) -> tuple[GroupOffsetView, ...]:
        """Return where groups stand on every partition, in the source and in the target; an empty ``group`` means all."""

    def explain(self, rg: str, group: str, topic: str, partition: int | None) -> Iterator[ExplanationView]:
        """Yield, per partition, the records around a group's position on both sides, and what MM2 knows of it."""

    def diff(self, rg: str, group: str) -> tuple[OffsetDiffView, ...]:
        """Return the answers beside MM2's checkpoints and what is committed in the target."""

    def unmovable(self, rg: str) -> tuple[UnmovableView, ...]:
        """Return what group offsets do not move."""

    def translate_many(self, rg: str, places: Sequence[Place]) -> tuple[TranslatedView, ...]:
        """Return the translations in the order of ``places``; none refuses the others."""

    def apply_offsets(self, rg: str, group: str, dry_run: bool) -> tuple[CommittedView, ...]:  # noqa: FBT001 - the API's field
        """Commit a group's safe positions in this region, where it has no members and the region is not open."""

    def commit_offsets(
        self,
        rg: str,
        group: str,
        epoch: int,
        positions: Mapping[TopicPartition, Position],
        dry_run: bool,  # noqa: FBT001 - the API's field
    ) -> tuple[CommittedView, ...]:
        """Commit given positions in this region under the same conditions; ``epoch`` 0: nobody knows in which they were taken."""

    def forget(self, rg: str, group: str, topic: str, dry_run: bool) -> tuple[ForgottenView, ...]:  # noqa: FBT001 - the API's field
        """Delete the checkpoints of a group that has no positions in the source any more."""

    def plan(
        self,
        rg: str,
        kind: str,
        target: str,
        attested: bool,  # noqa: FBT001 - the API's fields
        allow_data_loss: bool,  # noqa: FBT001
        restarted: bool = False,  # noqa: FBT001, FBT002
    ) -> PlanView:
        """Return what a move would do now."""

    def start(
        self,
        rg: str,
        kind: str,
        target: str,
        token: str,
        actor: str,
        reason: str,
        attested: bool,  # noqa: FBT001 - the API's fields
        allow_data_loss: bool,  # noqa: FBT001
        restarted: bool = False,  # noqa: FBT001, FBT002
    ) -> ExecutionView:
        """Start a move; the same token with the same request returns the same execution.

        A failover with ``allow_data_loss`` takes the place of the move that is running, which ends as it stands.
        """

    def execution(self, id: str) -> ExecutionView:
        """Return an execution as it stands."""

    def executions(self, rg: str) -> tuple[ExecutionView, ...]:
        """Return the last executions, oldest first."""

    def history(self, id: str) -> tuple[EntryView, ...]:
        """Return an execution's journal, oldest entry first."""

    def report(self, id: str) -> str:
        """Return an execution's report as it stands, as a JSON document."""

    def watch(self, id: str) -> Iterator[ExecutionView]:
        """Yield the execution now and after each change, and at least every few seconds, until it has ended.

        The server drops the iterator between two views when its client is gone.
        """

    def approve(self, id: str, actor: str, reason: str) -> ExecutionView:
        """Approve what an execution waits for."""

    def abort(self, id: str, actor: str, reason: str) -> ExecutionView:
        """Ask an execution to undo what it did and end."""

    def skip(self, id: str, actor: str, reason: str) -> ExecutionView:
        """Let an execution go on without the step that waits."""

    def divergence(self, rg: str) -> tuple[DivergenceView, ...]:
        """Return what failovers have left behind, oldest first."""

    def recover(self, rg: str, execution: str, doing: str) -> Iterator[RecoveryProgressView]:
        """Export or resolve what a failover left behind, and yield how far that has come.

        The server drops the iterator between two views when its client is gone; another call goes on.
        """

    def recoveries(self, rg: str) -> tuple[RecoveryView, ...]:
        """Return what has become of divergent records so far, oldest failover first."""


class Dockets(Protocol):
    """The dockets of one agent's region."""

    def docket(self, rg: str, topic: str, check: Callable[[], None]) -> AbstractContextManager[Docket]:
        """Open the docket of a replication group, for one call: nobody has used it before, and its connections are closed in the end.

        Args:
            rg: the replication group; empty: the only one.
            topic: whose conflicts; empty: those of all topics of the rules.
            check: is called between two pieces of work, see `Caller.check`.

        Raises:
            MrcError: ``UNKNOWN_REPLICATION_GROUP``, ``UNKNOWN_REGION``, ``UNKNOWN_TOPIC``, ``CONFIG_INVALID`` where it names no rules,
                ``RULES_INVALID``.
        """
