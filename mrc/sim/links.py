"""What stands between an agent and the world: links that are down, replies that are lost, calls at which the agent dies or is paused.

Every call of a port passes here, so an agent can stop at any instant at which the outside world could tell the difference: right before
a request is carried out or right after it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from mrc.core.errors import MrcError
from mrc.core.inventory import Binding, Position
from mrc.core.model import Region, TopicPartition
from mrc.ports import Check, Create, Delete, Put
from mrc.sim.kills import ACTS, Killed, one_by_one
from mrc.sim.scheduling import Process, Scheduler
from mrc.sim.tree import FakeTree

GAP_S = 2.0
"""An agent asks ZooKeeper more often than that."""

UNGATED = frozenset({"session_id", "lease_s", "full_path", "within", "watch"})
"""Methods of ports that ask nobody."""

_UNREACHABLE = {
    "kafka": "CLUSTER_UNREACHABLE",
    "connect": "CONNECT_UNREACHABLE",
    "hook": "HOOK_FAILED",
    "route": "ROUTE_UNREACHABLE",
    "zookeeper": "ZOOKEEPER_UNREACHABLE",
}


class Fate(msgspec.Struct):
    """What happens to a process at one of its next calls.

    Attributes:
        calls: so many calls from now.
        acts_only: count only calls that change something.
        after: right after the call was carried out, before the process knows.
        pause_s: how long it stands still; 0: it dies.
    """

    calls: int
    acts_only: bool
    after: bool
    pause_s: float


class AgentProcess(Process):
    """One agent's process and its links.

    Attributes:
        tree: its handle of ZooKeeper.
        cut: (kind of port, region) of the links that are down.
        off: it does not reach ZooKeeper.
        fates: what is to happen to it.
        hears_since_s: since when ZooKeeper answers it, without a pause of more than `GAP_S`.
        answered_s: when ZooKeeper last answered it.
        paused: how often it stood still so far.
    """

    def __init__(
        self, name: str, scheduler: Scheduler, trace: Callable[[str, str], None], woke_late: Callable[[Region], None] = lambda where: None
    ) -> None:
        """Make one; ``woke_late`` is told the region in which it acts on Kafka with a request from before its lease ran out."""
        super().__init__(name)
        self.tree: FakeTree | None = None
        self.cut: set[tuple[str, Region]] = set()
        self.off = False
        self.fates: list[Fate] = []
        self.hears_since_s = self.answered_s = float("-inf")
        self.paused = 0
        self._scheduler = scheduler
        self._trace = trace
        self._woke_late = woke_late

    def wire(self, port: Any, kind: str, where: Region) -> Any:
        """Return ``port`` as this process reaches it."""
        return _Wired(self, port, kind, where)

    def reach_zookeeper(self) -> None:
        """Let the handle reach ZooKeeper, or not, as the process's state has it."""
        if self.tree is not None:
            wanted = not (self.off or self.dead or self.paused_until_s > self._scheduler.now_s)
            if self.tree.reachable != wanted:
                self.tree.reachable = wanted

    def die(self) -> None:
        """End. Its session lives on until it expires."""
        self.dead = True
        self.reach_zookeeper()
        self._trace(self.name, "dies")

    def pause(self, seconds: float) -> None:
        """Stand still, all of the process, wherever it is."""
        self._trace(self.name, f"is paused for {seconds:.1f} s")
        self.paused += 1
        self.paused_until_s = self._scheduler.now_s + seconds
        self.reach_zookeeper()
        self._scheduler.sleep(seconds, self)
        self.reach_zookeeper()
        self._trace(self.name, "goes on")

    def call(self, name: str, where: str, do: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry one call of a port out, or stop before or after it."""
        if self.dead:
            raise Killed(self.name)
        act = name in ACTS
        fate = self._due(act=act) if self.fates else None
        if fate is not None and not fate.after:
            self._stop(fate)
            if act and where.startswith("kafka") and self.tree is not None and self.tree.lease_s() <= 0:
                self._woke_late(Region(where.partition(" ")[2]))
        if act:
            self._trace(self.name, f"{where} {name} {_told(name, args)}")
        result = do(*args, **kwargs)
        if where.startswith("zookeeper"):
            self._answered()
        if fate is not None and fate.after:
            self._stop(fate)
        return result

    def _answered(self) -> None:
        now_s = self._scheduler.now_s
        if now_s - self.answered_s > GAP_S:
            self.hears_since_s = now_s
        self.answered_s = now_s

    def _due(self, *, act: bool) -> Fate | None:
        for fate in self.fates:
            if act or not fate.acts_only:
                fate.calls -= 1
                if fate.calls <= 0:
                    self.fates.remove(fate)
                    return fate
        return None

    def _stop(self, fate: Fate) -> None:
        if fate.pause_s:
            self.pause(fate.pause_s)
        else:
            self.die()
            raise Killed(self.name)


class _Wired:
    """A port as one process reaches it: the same methods."""

    def __init__(self, process: AgentProcess, port: Any, kind: str, where: Region) -> None:
        self.name = getattr(port, "name", "")
        for name in dir(type(port)):
            if not name.startswith("_") and callable(getattr(type(port), name)):
                method = getattr(port, name)
                setattr(self, name, method if name in UNGATED else _gated(process, method, name, kind, where))
        if (commit := getattr(self, "commit_positions", None)) is not None:
            self.commit_positions_of = partial(one_by_one, commit)


def _gated(process: AgentProcess, method: Callable[..., Any], name: str, kind: str, where: Region) -> Callable[..., Any]:
    link, label = (kind, where), f"{kind} {where}"

    def reach(*args: Any, **kwargs: Any) -> Any:
        if link in process.cut:
            raise MrcError(_UNREACHABLE[kind], "no answer", where=str(where), retryable=True)
        result = method(*args, **kwargs)
        if name in ("reader", "commits", "emitter"):
            return _Wired(process, result, kind, where)
        return result

    def call(*args: Any, **kwargs: Any) -> Any:
        return process.call(name, label, reach, args, kwargs)

    return call


def _told(name: str, args: tuple[Any, ...]) -> str:
    """Return an act's arguments, the same text for the same values whatever order a set has.

    So has a batch of keyed records, each with a key of its own: the capture writes them in the order of a set.
    """
    if name == "append":
        return f"{args[0]} {sorted(map(_word, args[1]))}"
    return " ".join(_word(arg) for arg in args)


def _word(value: Any) -> str:
    match value:
        case Check():
            return f"check {value.path}@{value.version}"
        case Create() | Put():
            return f"{type(value).__name__.lower()} {value.path} {value.data.decode()}"
        case Delete():
            return f"delete {value.path}@{value.version}"
        case Binding():
            return f"{value.permission} {value.principal} {value.operation} {value.name}"
        case TopicPartition():
            return str(value)
        case Position():
            return str(value.offset)
        case bytes():
            return value.decode(errors="replace")
        case dict():
            return "{" + ", ".join(f"{_word(key)}: {_word(value[key])}" for key in sorted(value)) + "}"
        case set() | frozenset():
            return "{" + ", ".join(sorted(map(_word, value))) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_word, value)) + "]"
        case _:
            return str(value)
