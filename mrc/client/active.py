"""Follows a replication group's active-region record in ZooKeeper.

Owns one ZooKeeper session and one thread. Refuses to guess: while ZooKeeper is unreachable it keeps the last record
and says since when. Invariant: the record never goes back, even when the session moves to a server that lags behind.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

import msgspec
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from mrc.client.place import Sighting
from mrc.core.model import ActiveRecord, decode

_log = logging.getLogger(__name__)
_kazoo_log = logging.getLogger("mrc.client.zookeeper")
_kazoo_log.addHandler(logging.NullHandler())
_kazoo_log.propagate = False


class ActiveRegion:
    """The active region of one replication group, always up to date. Safe to use from any thread.

    A change is seen by a ZooKeeper watch within milliseconds, and by re-reading at the latest after ``reread_s``
    seconds; losing one of three servers costs one reconnection.
    """

    def __init__(
        self,
        connect: str,
        replication_group: str,
        *,
        root: str = "/mrc",
        reread_s: float = 1.0,
        deadline_s: float = 2.0,
        session_timeout_s: float = 4.0,
    ) -> None:
        """Start to follow; returns at once, before the first reading.

        Args:
            connect: ZooKeeper's ``host:port,host:port,...``.
            replication_group: its name.
            root: the node below which mrc keeps its own.
            reread_s: seconds between readings when nothing changes.
            deadline_s: seconds after which one reading counts as failed.
            session_timeout_s: ZooKeeper's session time-out.
        """
        self._path = f"{root.rstrip('/')}/groups/{replication_group}/record"
        self._reread_s = reread_s
        self._deadline_s = deadline_s
        self._sighting = Sighting()
        self._newest_transaction = -1
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closing = False
        self._zookeeper = KazooClient(
            hosts=connect,
            timeout=session_timeout_s,
            randomize_hosts=True,
            connection_retry={"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 1.0},
            command_retry={"max_tries": 0},
            logger=_kazoo_log,
        )
        self._zookeeper.add_listener(self._kick)
        self._zookeeper.start_async()
        self._thread = threading.Thread(target=self._follow, name=f"active-region-{replication_group}", daemon=True)
        self._thread.start()

    def now(self) -> Sighting:
        """Return what is known now, without waiting."""
        return self._sighting

    def wait_beyond(self, number: int, timeout_s: float) -> Sighting:
        """Wait until the record differs from sighting ``number``, or ``timeout_s`` has passed; return what is known then."""
        with self._changed:
            self._changed.wait_for(lambda: self._sighting.number > number or self._closing, timeout_s)
            return self._sighting

    def close(self) -> None:
        """End the thread and the session; waiters return at once. Harmless when repeated."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._wake.set()
        self._thread.join(self._deadline_s + 1.0)
        self._zookeeper.stop()
        self._zookeeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _kick(self, _event: Any) -> None:
        # Called on ZooKeeper's own threads, for watches and for changes of the connection: it may only enqueue.
        self._wake.set()

    def _follow(self) -> None:
        while not self._closing:
            self._wake.clear()
            self._read()
            # Without a connection the next reading comes sooner; a change of the connection wakes this thread too.
            self._wake.wait(self._reread_s if self._sighting.failing_since_ms is None else min(self._reread_s, 0.25))

    def _read(self) -> None:
        if not self._zookeeper.connected:
            self._failed("not connected to ZooKeeper")
            return
        try:
            data, stat = self._zookeeper.get_async(self._path, watch=self._kick).get(timeout=self._deadline_s)
        except NoNodeError:
            self._failed(f"there is no record at {self._path}")
        except (KazooException, KazooTimeoutError) as error:
            self._failed(f"ZooKeeper did not answer: {type(error).__name__}")
        else:
            self._succeeded(data, stat.mzxid)

    def _succeeded(self, data: bytes, transaction: int) -> None:
        before = self._sighting
        record = before.record
        if transaction > self._newest_transaction:
            try:
                record = decode(data, ActiveRecord)
            except msgspec.DecodeError as error:
                self._failed(f"the record at {self._path} cannot be read: {error}")
                return
            self._newest_transaction = transaction
        number = before.number + (record != before.record)
        self._publish(Sighting(record=record, number=number, confirmed_at_ms=_now_ms()))

    def _failed(self, trouble: str) -> None:
        before = self._sighting
        since_ms = before.failing_since_ms if before.failing_since_ms is not None else _now_ms()
        self._publish(msgspec.structs.replace(before, failing_since_ms=since_ms, trouble=trouble))

    def _publish(self, sighting: Sighting) -> None:
        if sighting.number != self._sighting.number:
            _log.info("active record of %s: %s", self._path, sighting.record)
        with self._changed:
            self._sighting = sighting
            self._changed.notify_all()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
