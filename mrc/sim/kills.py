"""Kill points: every act of an agent on the outside world, enumerated, each with the instant before and the instant after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mrc.core.errors import MrcError
from mrc.core.model import GroupId, TopicPartition
from mrc.ports import Position

Positions = Mapping[GroupId, Mapping[TopicPartition, Position]]

ACTS = frozenset(
    {
        "commit",
        "create_ephemeral",
        "ensure_topic",
        "append",
        "make_topic_like",
        "delete_topic",
        "delete_records",
        "emitter",
        "send",
        "add_bindings",
        "remove_bindings",
        "commit_positions",
        "stop",
        "resume",
        "set_positions",
        "point",
        "create",
        "configure",
        "delete",
        "remove_topics",
        "run",
    }
)
"""Methods of ports that change something outside; all others only read."""


class Killed(BaseException):
    """The agent has been killed: nothing of it runs any more, not even its handlers of errors."""


class KillSwitch:
    """Counts an agent's acts and kills it at one of them.

    Attributes:
        armed: acts count only while it is True.
        acts: names of the acts so far.
        at: index of the act to die at; -1: never.
        after: die right after the act instead of right before it.
        dead: every act of a dead agent kills it again: it never acts.
    """

    def __init__(self, at: int = -1, *, after: bool = False) -> None:
        self.armed = False
        self.acts: list[str] = []
        self.at = at
        self.after = after
        self.dead = False

    def die_at(self, at: int, *, after: bool) -> None:
        """Count acts from now on, and die at this one."""
        self.at, self.after, self.armed = at, after, True

    def watch(self, port: Any) -> Any:  # any port: the watched one has the same methods
        """Return ``port`` with every act counted."""
        return _Watched(port, self)

    def act(self, name: str, do: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry an act out, or die before or after it."""
        if self.dead:
            raise Killed(name)
        if not self.armed:
            return do(*args, **kwargs)
        index = len(self.acts)
        self.acts.append(name)
        if index == self.at and not self.after:
            self._die(name)
        try:
            return do(*args, **kwargs)
        finally:
            if index == self.at:
                self._die(name)  # also after one that failed

    def _die(self, name: str) -> None:
        self.dead = True
        raise Killed(name)


def one_by_one(commit: Callable[[GroupId, Mapping[TopicPartition, Position]], None], positions: Positions) -> None:
    """Commit for many groups as they arrive at a cluster, one after the other: an agent may die between any two."""
    failures = []
    for group, wanted in positions.items():
        try:
            commit(group, wanted)
        except MrcError as error:
            failures.append(error)
    if failures:
        raise failures[0]


class _Watched:
    def __init__(self, port: Any, switch: KillSwitch) -> None:
        self._port = port
        self._switch = switch

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name == "commit_positions_of":
            return lambda positions: one_by_one(self.commit_positions, positions)
        if name not in ACTS:
            return found
        if name == "emitter":
            return lambda name_: self._switch.watch(self._switch.act(name, found, (name_,), {}))
        return lambda *args, **kwargs: self._switch.act(name, found, args, kwargs)
