"""One partition of a flow's two regions: the aligner of its records, and which side of it each region is.

MM2 copies source -> target, and a pair's records are aligned in that order. Under the default policy groups also read, in the
source, copies of what was written in the target (``<target>.orders`` there is ``orders`` here). Such a pair *came back*: the other flow
copied it, so its originals stand in the target. All that the readers and groups of this flow ask is answered in the words of
this flow all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from mrc.core.model import Offset, Seen, TopicPartition
from mrc.core.translation.aligner import Aligner
from mrc.core.translation.changed import Changed
from mrc.core.translation.offset_map import Deleted, OffsetMap, Translation
from mrc.core.translation.stored import Anew


class Pair:
    """One partition: its aligner, its name on both sides, and how much of its map is stored.

    Attributes:
        source, target: the partition in the flow's source and in its target.
        ids: of the two topics, in the same order.
        source_goal, target_goal: where the two logs ended when this agent began to read them; None: it has not yet.
        came_back: the target has the originals. `known` and `aligner` speak of originals and copies, as MM2 made them.
    """

    def __init__(
        self,
        source: TopicPartition,
        target: TopicPartition,
        known: OffsetMap,
        ids: tuple[str, str],
        *,
        stamped: bool,
        came_back: bool = False,
    ) -> None:
        self.source = source
        self.target = target
        self.ids = ids
        self.came_back = came_back
        self.aligner = Aligner(known, stamped=stamped)
        self.stored_first = known.first
        self.stored_at = (known.resolved_source, known.resolved_target)
        self.source_goal: Offset | None = None
        self.target_goal: Offset | None = None
        self.changed: Changed | None = None
        self.compacted = False
        self.sight = ""
        self.anew: Anew | None = None

    @property
    def read_through(self) -> bool:
        """Whether both logs were read to where they ended when this agent began: nothing old can cast doubt any more."""
        return self.source_read_through and self.target_read_through

    @property
    def source_read_through(self) -> bool:
        """The same of the source alone."""
        return self.source_goal is not None and self.source_position >= self.source_goal

    @property
    def target_read_through(self) -> bool:
        """The same of the target alone."""
        return self.target_goal is not None and self.target_position >= self.target_goal

    @property
    def known(self) -> OffsetMap:
        """The partition's offset map."""
        return self.aligner.map

    # -- the flow's source and target, whichever has the originals

    @property
    def source_position(self) -> int:
        """Up to where the source has been read."""
        return self.aligner.target_position if self.came_back else self.aligner.source_position

    @property
    def target_position(self) -> int:
        """Up to where the target has been read."""
        return self.aligner.source_position if self.came_back else self.aligner.target_position

    @property
    def wants_source(self) -> bool:
        """Whether the source's reader should go on."""
        return self.aligner.wants_target if self.came_back else self.aligner.wants_source

    @property
    def wants_target(self) -> bool:
        """Whether the target's reader should go on."""
        return self.aligner.wants_source if self.came_back else self.aligner.wants_target

    def feed_source(self, records: Iterable[Seen], position: int) -> None:
        """Take what was read in the source."""
        (self.aligner.feed_target if self.came_back else self.aligner.feed_source)(records, position)

    def feed_target(self, records: Iterable[Seen], position: int) -> None:
        """Take what was read in the target."""
        (self.aligner.feed_source if self.came_back else self.aligner.feed_target)(records, position)

    def to_target(self, offset: int, *, final: bool = False) -> Translation:
        """Translate a source position; see `OffsetMap.to_target`. For what came back ``final`` means nothing: nobody waits for copies."""
        return self.known.to_source(offset) if self.came_back else self.known.to_target(offset, final=final)

    def to_source(self, offset: int) -> Translation:
        """Translate a target position."""
        return self.known.to_target(offset) if self.came_back else self.known.to_source(offset)

    def deleted(self, position: int, target_start: int) -> Deleted:
        """Return what a group at a source position would skip in a target whose log starts there; see `OffsetMap.deleted`."""
        return self.known.deleted_originals(position, target_start) if self.came_back else self.known.deleted(position, target_start)


def oriented(of_source: int, of_target: int, *, came_back: bool) -> tuple[int, int]:
    """Return two offsets of a flow's source and target in the order of the map: the originals' first."""
    return (of_target, of_source) if came_back else (of_source, of_target)
