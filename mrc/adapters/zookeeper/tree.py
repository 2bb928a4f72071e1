"""The coordination tree on ZooKeeper: the `Tree` port.

Nothing is queued for a later connection: a call during a loss fails at once, so that an effect decided under an old lease cannot
be carried out when ZooKeeper returns. The lease is counted from when the last request that the ensemble's leader answered was *sent*.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    KazooException,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import EventType, KazooState, KeeperState
from kazoo.retry import KazooRetry

from mrc.core.errors import MrcError
from mrc.ports import LEASE_SHARE, Check, Conflict, Create, Delete, Node, Op, Put

T = TypeVar("T")

_LOST_COMPARISONS = (NodeExistsError, NoNodeError, BadVersionError, NotEmptyError)

_LOG = logging.getLogger("mrc.zookeeper.driver")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False


class ZooKeeperTree:
    """The port `Tree` over one ZooKeeper session (and the next one, when it expires). Safe for several threads.

    Args:
        connect: ``host:port``, comma separated.
        root: mrc's root; made where missing.
        session_timeout_ms: asked of the ensemble, which may grant another.
        deadline_s: what any call may take, the first connection included.
    """

    def __init__(self, connect: str, root: str, session_timeout_ms: int, deadline_s: float) -> None:
        self._connect = connect
        self._root = root.rstrip("/")
        self._deadline_s = deadline_s
        self._hurried = threading.local()
        self._lock = threading.Lock()
        self._answered_s = float("-inf")
        self._session = 0
        self._rooted = False
        self._watches: dict[str, list[Callable[[], None]]] = {}
        self._watchers: dict[str, Callable[[Any], None]] = {}
        endless = KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_delay=0.5)
        self._client = KazooClient(
            hosts=connect, timeout=session_timeout_ms / 1000, connection_retry=endless, command_retry=KazooRetry(max_tries=0), logger=_LOG
        )
        self._granted_s = session_timeout_ms / 1000
        self._learn_granted_timeout()
        self._client.add_listener(self._changed)
        self._client.start_async()

    def close(self) -> None:
        """End the session, and with it its ephemeral nodes."""
        self._client.stop()
        self._client.close()

    def get(self, path: str) -> Node | None:
        """See `Tree.get`."""
        try:
            data, stat = self._read(lambda: self._client.get_async(self._at(path)))
        except NoNodeError:
            return None
        return Node(data=data, version=stat.version)

    def get_all(self, paths: Sequence[str]) -> list[Node | None]:
        """See `Tree.get_all`. The requests follow one another without waiting for answers."""
        if not paths:
            return []
        answers = self._read(lambda: _Answers([self._client.get_async(self._at(path)) for path in paths]))
        return [None if answer is None else Node(data=answer[0], version=answer[1].version) for answer in answers]

    def children(self, path: str) -> list[str]:
        """See `Tree.children`."""
        try:
            names: list[str] = self._read(lambda: self._client.get_children_async(self._at(path)))
        except NoNodeError:
            return []
        return sorted(names)

    def ensure(self, path: str) -> None:
        """See `Tree.ensure`."""
        self._make(self._at(path))

    def create_ephemeral(self, path: str, data: bytes) -> None:
        """See `Tree.create_ephemeral`. The parents must exist."""
        try:
            self._call(lambda: self._client.create_async(self._at(path), data, ephemeral=True))
        except _LOST_COMPARISONS as error:
            raise Conflict(path) from error

    def owns(self, path: str) -> bool:
        """See `Tree.owns`."""
        stat = self._read(lambda: self._client.exists_async(self._at(path)))
        session = self._client.client_id
        return stat is not None and session is not None and stat.ephemeralOwner == session[0]

    def commit(self, ops: Sequence[Op]) -> None:
        """See `Tree.commit`."""
        if not ops:
            return
        transaction = self._client.transaction()
        for op in ops:
            match op:
                case Check():
                    transaction.check(self._at(op.path), op.version)
                case Create():
                    transaction.create(self._at(op.path), op.data)
                case Put():
                    transaction.set_data(self._at(op.path), op.data, op.version)
                case Delete():
                    transaction.delete(self._at(op.path), op.version)
        results = self._call(transaction.commit_async)
        # A refused transaction is not an exception in kazoo: the reason stands among results that were rolled back.
        for op, result in zip(ops, results, strict=True):
            if isinstance(result, _LOST_COMPARISONS):
                raise Conflict(op.path) from result
        for op, result in zip(ops, results, strict=True):
            if isinstance(result, Exception) and not isinstance(result, RolledBackError | RuntimeInconsistency):
                raise self._unreachable(f"{op.path}: {type(result).__name__}") from result
        if any(isinstance(result, Exception) for result in results):
            raise Conflict(ops[0].path)

    def watch(self, path: str, notify: Callable[[], None]) -> None:
        """See `Tree.watch`. Also notified after each reconnection, because changes may have been missed."""
        with self._lock:
            first = path not in self._watches
            self._watches.setdefault(path, []).append(notify)
            # One and the same object per path: kazoo keeps watchers in a set, so that arming twice does not tell twice.
            self._watchers.setdefault(path, partial(self._seen, path))
        if first and self._client.connected:
            self._arm(path)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """See `Tree.within`."""
        before: float | None = getattr(self._hurried, "until_s", None)
        until_s = time.monotonic() + seconds
        self._hurried.until_s = until_s if before is None else min(before, until_s)
        try:
            yield
        finally:
            self._hurried.until_s = before

    def full_path(self, path: str) -> str:
        """See `Tree.full_path`."""
        return self._at(path)

    def session_id(self) -> int:
        """See `Tree.session_id`."""
        known = self._client.client_id
        return int(known[0]) if known else 0

    def lease_s(self) -> float:
        """See `Tree.lease_s`."""
        with self._lock:
            answered_s = self._answered_s
        return max(0.0, self._granted_s * LEASE_SHARE - (time.monotonic() - answered_s))

    def _learn_granted_timeout(self) -> None:
        """Keep the session time-out that the ensemble grants: kazoo shows it only as its read time-out, two thirds of it."""
        handler = self._client._connection
        connect = handler._connect

        def connect_and_learn(*address: Any) -> tuple[float, float]:  # kazoo has no types
            read_timeout_ms, connect_timeout_ms = connect(*address)
            self._granted_s = read_timeout_ms * 1.5 / 1000
            return read_timeout_ms, connect_timeout_ms

        handler._connect = connect_and_learn

    def _at(self, path: str) -> str:
        return self._root + path if path != "/" else self._root or "/"

    def _call(self, start: Callable[[], Any]) -> Any:  # kazoo has no types
        """Send a request and wait for its answer; driver errors other than about nodes become ``ZOOKEEPER_UNREACHABLE``."""
        self._require_root()
        return self._request(start)

    def _read(self, start: Callable[[], Any]) -> Any:  # kazoo has no types
        """Read what the quorum has agreed on.

        A server answers reads by itself, also while it is cut off from the others, who may have expired this session already. The answer to
        a sync comes from the leader, so only with it in front does a read tell the present, and renew the lease. A leader that is cut off
        answers for some ticks more, but as long do the others wait before they elect another, and that one grants every session its
        whole time-out anew.
        """

        def synced() -> Any:  # kazoo has no types
            sync = self._client.sync_async(self._root or "/")
            answer = start()
            sync.get(timeout=self._allowed_s())
            return answer

        return self._call(synced)

    def _request(self, start: Callable[[], Any]) -> Any:  # kazoo has no types
        if not self._client.connected:
            raise self._unreachable("no connection")
        sent_s = time.monotonic()
        try:
            answer = start().get(timeout=self._allowed_s())
        except _LOST_COMPARISONS:
            self._renew(sent_s)
            raise
        except (KazooTimeoutError, KazooException) as error:
            raise self._unreachable(f"{type(error).__name__}; a write may have happened") from error
        self._renew(sent_s)
        return answer

    def _allowed_s(self) -> float:
        """Return how long the calling thread may wait for one answer from now on; see `within`."""
        until_s: float | None = getattr(self._hurried, "until_s", None)
        return self._deadline_s if until_s is None else max(0.0, min(self._deadline_s, until_s - time.monotonic()))

    def _renew(self, sent_s: float) -> None:
        with self._lock:
            self._answered_s = max(self._answered_s, sent_s)

    def _require_root(self) -> None:
        """Wait for the first connection, up to the deadline, and make the root once; later losses are not waited for."""
        if self._rooted:
            return
        allowed_s = self._allowed_s()
        until_s = time.monotonic() + allowed_s
        while not self._client.connected:
            if time.monotonic() > until_s:
                raise self._unreachable(f"no connection within {allowed_s:.1f} s")
            time.sleep(0.01)
        self._make(self._root)
        self._rooted = True

    def _make(self, path: str) -> None:
        parts = [part for part in path.split("/") if part]
        for count in range(1, len(parts) + 1):
            place = "/" + "/".join(parts[:count])
            try:
                self._request(partial(self._client.create_async, place, b""))
            except NodeExistsError:
                continue

    def _changed(self, state: KazooState) -> None:
        """Called by kazoo's own thread: anything that talks to ZooKeeper goes elsewhere."""
        if state == KazooState.LOST:
            with self._lock:
                self._answered_s = float("-inf")
        if state == KazooState.CONNECTED and self._client.client_state != KeeperState.CONNECTED_RO:
            self._client.handler.spawn(self._rearm)

    def _rearm(self) -> None:
        with self._lock:
            paths = list(self._watches)
        for path in paths:
            self._arm(path)
            self._notify(path)

    def _arm(self, path: str) -> None:
        """Ask to be told of the node's next change; a failure is mended by the next reconnection."""
        self._client.exists_async(self._at(path), watch=self._watchers[path])

    def _seen(self, path: str, event: Any) -> None:  # kazoo has no types
        if event.type != EventType.NONE:
            self._client.handler.spawn(self._arm_and_notify, path)

    def _arm_and_notify(self, path: str) -> None:
        # Armed before told, so that what happens after the notified reader looked is told as well.
        if self._client.connected:
            self._arm(path)
        self._notify(path)

    def _notify(self, path: str) -> None:
        with self._lock:
            callbacks = list(self._watches.get(path, ()))
        for notify in callbacks:
            notify()

    def _unreachable(self, why: str) -> MrcError:
        return MrcError("ZOOKEEPER_UNREACHABLE", why, where=self._connect, retryable=True)


class _Answers:
    """Many requests for nodes that were sent at once, waited for like one of kazoo's; what is not there answers None."""

    def __init__(self, asked: Sequence[Any]) -> None:  # kazoo has no types
        self._asked = asked

    def get(self, timeout: float) -> list[Any]:
        until_s = time.monotonic() + timeout
        found: list[Any] = []
        for one in self._asked:
            try:
                found.append(one.get(timeout=max(0.0, until_s - time.monotonic())))
            except NoNodeError:
                found.append(None)
        return found
