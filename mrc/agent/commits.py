"""What a replication group's consumer groups have committed in one cluster, followed as it happens.

Two ways, each the other's check: the cluster tells every commit as it happens, and each group is asked for its positions in
turn. Where commits cannot be followed (mrc may not read Kafka's own topic, or it is written in a form that is not
known) all groups are asked again and again, which is slower and still right.
"""

from __future__ import annotations

from mrc.agent.estate import Estate
from mrc.core.errors import MrcError
from mrc.core.inventory import Position
from mrc.core.model import GroupId, Region, TopicPartition
from mrc.ports import Commits

Key = tuple[GroupId, TopicPartition]

ASK_EVERY_S = 0.25
"""How often all groups are asked where commits cannot be followed."""

SWEEP_S = 30.0
"""How long a round of asking every group takes where commits are followed and groups are few."""

ASK_ONE_EVERY_S = 0.5
"""How often one group is asked at most then: each question holds the capture up, and many groups would mean many of them."""

REOPEN_S = 30.0
"""How long following is not tried again after it was refused."""

SETTLED_S = 5.0
"""A group's answer counts only for partitions that were silent for so long: the tail may be ahead of, or behind, the answer."""

_REFUSALS = ("AUTHORIZATION_FAILED", "VERSION_MISMATCH", "UNKNOWN_TOPIC")


class FollowedCommits:
    """Positions of the unit's groups in one region. Not thread-safe: the capture's thread calls it.

    Attributes:
        positions: what is known, by group and partition.
        refused: why commits cannot be followed; empty where they are.
        heard_at_ms: when the cluster last answered, so that everything in `positions` was current.
    """

    def __init__(self, estate: Estate, region: Region) -> None:
        self._estate = estate
        self._cluster = estate.clusters[region]
        self._groups = frozenset(estate.unit.groups)
        self.positions: dict[Key, Position] = {}
        self.refused = ""
        self.heard_at_ms = 0
        self._tail: Commits | None = None
        self._changed_at_s: dict[Key, float] = {}
        self._opened_at_s = self._asked_at_s = float("-inf")
        self._turn = 0
        self._asked_all = False

    def close(self) -> None:
        """Drop the tail; `tick` opens it anew and asks every group first."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None
        self._opened_at_s = float("-inf")
        self._asked_all = False

    def tick(self) -> tuple[set[Key], set[Key]]:
        """Return the keys whose position has changed since, and those whose position is gone.

        Raises:
            MrcError: the cluster does not answer; call `close` then, so that nothing is missed.
        """
        before = dict(self.positions) if not self._asked_all else None
        changed: set[Key] = set()
        gone: set[Key] = set()
        self._open()
        if self._tail is not None:
            self._follow(changed, gone)
        self._ask(changed, gone)
        if before is not None and self._asked_all:
            gone |= before.keys() - self.positions.keys()
        self.heard_at_ms = self._estate.clock.now_ms()
        return changed - gone, gone

    def _open(self) -> None:
        now_s = self._estate.clock.monotonic_s()
        if self._tail is not None or now_s - self._opened_at_s < REOPEN_S:
            return
        self._opened_at_s = now_s
        try:
            self._tail = self._cluster.commits()
            self.refused = ""
        except MrcError as error:
            self._refuse(error)

    def _refuse(self, error: MrcError) -> None:
        if error.code not in _REFUSALS:
            raise error
        self.refused = error.message
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    def _follow(self, changed: set[Key], gone: set[Key]) -> None:
        if self._tail is None:
            return
        try:
            commits = self._tail.poll(0.0)
        except MrcError as error:
            self._refuse(error)
            return
        now_s = self._estate.clock.monotonic_s()
        for commit in commits:
            if commit.group not in self._groups:
                continue
            key = (commit.group, commit.tp)
            self._changed_at_s[key] = now_s
            self._put(key, commit.position, changed, gone)

    def _put(self, key: Key, position: Position | None, changed: set[Key], gone: set[Key]) -> None:
        if position is None:
            if self.positions.pop(key, None) is not None:
                gone.add(key)
                changed.discard(key)
        elif self.positions.get(key) != position:
            self.positions[key] = position
            changed.add(key)
            gone.discard(key)

    def _ask(self, changed: set[Key], gone: set[Key]) -> None:
        """Ask all groups at first and where commits are not followed; else one now and then, in turn."""
        groups = self._estate.unit.groups
        now_s = self._estate.clock.monotonic_s()
        every_s = ASK_EVERY_S if self._tail is None else max(ASK_ONE_EVERY_S, SWEEP_S / max(1, len(groups)))
        if self._asked_all and now_s - self._asked_at_s < every_s:
            return
        self._asked_at_s = now_s
        asked = groups if self._tail is None or not self._asked_all else (groups[self._turn % len(groups)],)
        self._turn += 1
        for group, found in self._cluster.positions_of(asked).items():
            self._answer(group, found, changed, gone)
        self._asked_all = True

    def _answer(self, group: GroupId, found: dict[TopicPartition, Position], changed: set[Key], gone: set[Key]) -> None:
        settled_s = self._estate.clock.monotonic_s() - SETTLED_S
        known = {key for key in self.positions if key[0] == group}
        for key in known | {(group, tp) for tp in found}:
            if self._tail is None or not self._asked_all or self._changed_at_s.get(key, float("-inf")) < settled_s:
                self._put(key, found.get(key[1]), changed, gone)
