"""Self-fencing: what an agent does that hears no ZooKeeper majority for too long, and how the other region counts the time.

Both sides measure the same fact, each by its own monotonic clock: since when no majority has told that an agent leads in a region.
An agent of the region looks at it to refuse writes there (`SelfFence`), agents elsewhere to know when that must have happened
(`Absence`). Invariant: an agent that hears a majority, or has never read the record, refuses nothing.
"""

from __future__ import annotations

from mrc.agent.estate import Estate
from mrc.agent.leadership import leader_path, term_path
from mrc.core.errors import MrcError
from mrc.core.failover import fence
from mrc.core.failover.fence import Wanted
from mrc.core.model import Region

LOOKS_MIN = 3
"""So many looks in a row must have found no majority: one that has just woken finds its connection gone, which means nothing yet."""

PAUSE_S = 8.0
"""No work stands still for so long by itself, waits after failures included: it was the process, and what it had seen is old."""


class SelfFence:
    """Refuses writes in the agent's own region when no majority has been heard for `Unit.self_fence_after_s`. One thread only.

    Attributes:
        stands: the refusals were found or made since the majority was heard last.
    """

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._named = False
        self._led_s = float("-inf")
        self._made_s = float("-inf")
        self._ended_s = float("-inf")
        self._looks = 0
        self.stands = False

    def tick(self) -> bool:
        """Look for a majority, and refuse writes where the deadline has passed; return whether refusals were added.

        Raises:
            MrcError: world errors of Kafka; the caller comes again.
        """
        clock = self._estate.clock
        began_s = clock.monotonic_s()
        if began_s - self._ended_s > PAUSE_S:
            self._looks = 0
        try:
            return not self._hears(began_s) and self._due(began_s) and self._refuse(began_s)
        finally:
            self._ended_s = clock.monotonic_s()

    def _hears(self, now_s: float) -> bool:
        """Ask the majority for the record; a region that is not led there is not heard of from elsewhere either."""
        store, region = self._estate.store, self._estate.region
        try:
            led = store.tree.get(leader_path(region)) is not None
            found = store.record()
        except MrcError as error:
            if error.code == "ZOOKEEPER_UNREACHABLE":
                self._looks += 1
                return False
            if error.code != "GARBLED_RECORD":  # a majority has answered; what was read last holds
                raise
        else:
            self._named = found is not None and found[0].region == region
        if led:  # also where nothing has been led since this agent began: the other region has counted since before that
            self._led_s = now_s
        self._looks, self.stands, self._made_s = 0, False, float("-inf")
        return True

    def _due(self, now_s: float) -> bool:
        after_s = self._estate.unit.self_fence_after_s
        if after_s is None or not self._named or self._looks < LOOKS_MIN or self._estate.store.tree.lease_s() > 0:
            return False
        # Refusals that were taken away again: by an agent that hears a majority, or by a person. Neither is contradicted at once.
        return now_s - self._led_s >= after_s and now_s - self._made_s >= after_s

    def _refuse(self, began_s: float) -> bool:
        estate = self._estate
        if estate.led_beside():
            return False
        cluster, clock = estate.clusters[estate.region], estate.clock
        existing = cluster.bindings()
        missing = fence.denies(estate.unit, existing, Wanted(writes=True, reads=False)) - existing
        if clock.monotonic_s() - began_s > PAUSE_S:
            return False
        if missing:
            # In one request with what tells them from the operator's own, for nothing can be noted in ZooKeeper now.
            cluster.add_bindings(missing | {fence.mark(binding, clock.now_ms()) for binding in missing})
        self._made_s, self.stands = clock.monotonic_s(), True
        return bool(missing)


class Absence:
    """Since when a majority has told this agent, at every look, that nobody leads in a region. For several threads."""

    def __init__(self, estate: Estate, region: Region) -> None:
        self._estate = estate
        self._region = region
        self._seen: tuple[int, float] | None = None
        """The term, and when it was first seen to be over."""

    def look(self) -> float | None:
        """Return for how many seconds nobody has led; None: somebody leads, or this is the first look.

        Between two looks nobody can have led unseen: a new leader's term is another one.

        Raises:
            MrcError: ``ZOOKEEPER_UNREACHABLE``; what was seen before holds.
        """
        tree = self._estate.store.tree
        node = tree.get(term_path(self._region))
        term = node.version if node else 0
        led = tree.get(leader_path(self._region)) is not None
        now_s = self._estate.clock.monotonic_s()
        before = self._seen
        if led:
            self._seen = None
            return None
        if before is None or before[0] != term:
            self._seen = (term, now_s)
            return None
        return now_s - before[1]
