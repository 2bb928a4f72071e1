"""ZooKeeper's tree in memory: one `TreeStore` for all, one `FakeTree` handle per agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from mrc.core.errors import MrcError
from mrc.ports import CALL_DEADLINE_S, LEASE_SHARE, Check, Conflict, Create, Delete, Node, Op, Put
from mrc.sim.clock import FakeClock


class Stored(msgspec.Struct, frozen=True):
    """A node; ``owner`` is the session of an ephemeral node, else 0."""

    data: bytes
    version: int = 0
    owner: int = 0


class TreeStore:
    """The ensemble.

    Attributes:
        quorum: without it no handle is answered, and sessions do not expire.
        frozen: nothing is answered, and no connection ends: every call waits for as long as it may.
        nodes: every node by path; for checkers.
    """

    def __init__(self, clock: FakeClock, session_timeout_s: float = 4.0) -> None:
        self.clock = clock
        self.session_timeout_s = session_timeout_s
        self.quorum = True
        self.frozen = False
        self.nodes: dict[str, Stored] = {"/": Stored(b"")}
        self._handles: list[FakeTree] = []
        self._sessions = 0

    def connect(self) -> FakeTree:
        """Return a new handle with a session of its own."""
        handle = FakeTree(self)
        self._handles.append(handle)
        return handle

    def new_session(self) -> int:
        """Return the next session's id."""
        self._sessions += 1
        return self._sessions

    def expire_silent(self) -> None:
        """Expire the sessions that have not been heard for a session time-out."""
        for handle in self._handles:
            if not handle.reachable and self.clock.monotonic_s() - handle.heard_s > self.session_timeout_s:
                handle.expire()
                handle.heard_s = float("inf")  # nothing is left to expire until it is heard again

    def replace(self, nodes: dict[str, Stored]) -> None:
        """Make ``nodes`` the tree and tell the watchers of what differs."""
        changed = {path for path in self.nodes.keys() | nodes.keys() if self.nodes.get(path) is not nodes.get(path)}
        self.nodes = nodes
        for handle in self._handles:
            handle.tell(changed)


class FakeTree:
    """The port `Tree`: one agent's handle.

    Attributes:
        session: the current session's id.
        heard_s: when the ensemble last heard of the session, by the world's monotonic clock.
        replies_to_lose: so many of the next writes happen and raise ``ZOOKEEPER_UNREACHABLE`` all the same.
    """

    def __init__(self, store: TreeStore) -> None:
        self._store = store
        self._reachable = True
        self._answered_s = float("-inf")
        self._watches: list[tuple[str, Callable[[], None]]] = []
        self.session = store.new_session()
        self.heard_s = store.clock.monotonic_s()
        self.replies_to_lose = 0
        self._until_s = float("inf")

    @property
    def reachable(self) -> bool:
        """Whether this handle reaches the ensemble; setting it False stops its heartbeats, so the session expires later."""
        return self._reachable

    @reachable.setter
    def reachable(self, value: bool) -> None:
        if value and not self._reachable:
            self._store.expire_silent()
        elif not value and self._reachable:
            self.heard_s = self._store.clock.monotonic_s()
        self._reachable = value
        if value:
            for _, notify in self._watches:
                notify()

    def expire(self) -> None:
        """End the session with its ephemeral nodes; the handle goes on with another one."""
        mine, self.session = self.session, self._store.new_session()
        self._answered_s = float("-inf")
        self._store.replace({path: node for path, node in self._store.nodes.items() if node.owner != mine})

    def close(self) -> None:
        """End the session for good."""
        self.expire()
        self._watches.clear()
        self._reachable = False

    def tell(self, changed: set[str]) -> None:
        """Notify the watches of the changed paths; what an unreachable handle missed is told when it returns."""
        if self._reachable and self._store.quorum:
            for path, notify in list(self._watches):
                if path in changed:
                    notify()

    def get(self, path: str) -> Node | None:
        """See `Tree.get`."""
        node = self._answer().get(path)
        return None if node is None else Node(node.data, node.version)

    def get_all(self, paths: Sequence[str]) -> list[Node | None]:
        """See `Tree.get_all`. Each is asked for by itself, so that a partition may begin between two."""
        return [self.get(path) for path in paths]

    def children(self, path: str) -> list[str]:
        """See `Tree.children`."""
        prefix = path.rstrip("/") + "/"
        names = (other.removeprefix(prefix) for other in self._answer() if other.startswith(prefix) and other != prefix)
        return sorted(name for name in names if "/" not in name)

    def ensure(self, path: str) -> None:
        """See `Tree.ensure`."""
        nodes = dict(self._answer())
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            nodes.setdefault("/" + "/".join(parts[:count]), Stored(b""))
        self._write(nodes)

    def create_ephemeral(self, path: str, data: bytes) -> None:
        """See `Tree.create_ephemeral`."""
        nodes = dict(self._answer())
        _apply(nodes, Create(path, data), self.session)
        self._write(nodes)

    def owns(self, path: str) -> bool:
        """See `Tree.owns`."""
        node = self._answer().get(path)
        return node is not None and node.owner == self.session

    def commit(self, ops: Sequence[Op]) -> None:
        """See `Tree.commit`."""
        nodes = dict(self._answer())
        for op in ops:
            _apply(nodes, op, 0)
        self._write(nodes)

    def watch(self, path: str, notify: Callable[[], None]) -> None:
        """See `Tree.watch`; ``notify`` is called within the write that changes the node."""
        self._watches.append((path, notify))

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """See `Tree.within`."""
        before = self._until_s
        self._until_s = min(before, self._store.clock.monotonic_s() + seconds)
        try:
            yield
        finally:
            self._until_s = before

    def full_path(self, path: str) -> str:
        """See `Tree.full_path`."""
        return f"/mrc{path}"

    def session_id(self) -> int:
        """See `Tree.session_id`."""
        return self.session

    def lease_s(self) -> float:
        """See `Tree.lease_s`."""
        return max(0.0, self._store.session_timeout_s * LEASE_SHARE - (self._store.clock.monotonic_s() - self._answered_s))

    def _answer(self) -> dict[str, Stored]:
        if self._store.frozen:
            self._store.clock.sleep(min(CALL_DEADLINE_S, self._until_s - self._store.clock.monotonic_s()))
            raise MrcError("ZOOKEEPER_UNREACHABLE", "no answer", where="tree", retryable=True)
        if not (self._reachable and self._store.quorum):
            raise MrcError("ZOOKEEPER_UNREACHABLE", "no connection", where="tree", retryable=True)
        self._store.expire_silent()
        self._answered_s = self.heard_s = self._store.clock.monotonic_s()
        return self._store.nodes

    def _write(self, nodes: dict[str, Stored]) -> None:
        self._store.replace(nodes)
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            raise MrcError("ZOOKEEPER_UNREACHABLE", "the reply was lost; the write may have happened", where="tree", retryable=True)


def _apply(nodes: dict[str, Stored], op: Op, owner: int) -> None:
    """Do one operation on ``nodes`` or raise `Conflict`."""
    found = nodes.get(op.path)
    if isinstance(op, Create):
        parent = nodes.get(op.path.rpartition("/")[0] or "/")
        if found is not None or parent is None or parent.owner:
            raise Conflict(op.path)
        nodes[op.path] = Stored(op.data, 0, owner)
        return
    if found is None or found.version != op.version:
        raise Conflict(op.path)
    match op:
        case Put():
            nodes[op.path] = Stored(op.data, found.version + 1, found.owner)
        case Delete():
            if any(path.startswith(op.path + "/") for path in nodes):
                raise Conflict(op.path)
            del nodes[op.path]
        case Check():
            pass
