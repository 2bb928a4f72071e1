"""Administrative connections, their deadline and the way of waiting for them.

librdkafka (2.16) aborts the whole process when the answer to an admin request on a group arrives after the request's own time-out
(confluentinc/librdkafka issue 4605): a broker that hangs and comes back would kill every agent that asked. So the driver's time-out
never comes first: a call that is over its deadline ends its connection, which nobody else uses meanwhile, and with it the request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from mrc.adapters.kafka.access import DRIVER_LOG, Access
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error
from mrc.core.errors import MrcError

K = TypeVar("K")
T = TypeVar("T")

DRIVER_TIMEOUT_S: Final = 60.0
"""What every request tells the driver; longer than any deadline, see above."""

_SLICE_S = 0.05
"""How long a refused password may go unseen."""

_IDLE_MAX = 4
"""Connections kept for the next calls; more threads than that rarely ask at once."""


class _Line:
    """One client and what it complained of. Only a `_Line` refers to its client, so that hanging up ends the connection at once."""

    def __init__(self, access: Access) -> None:
        self.complaints = Complaints()
        config: dict[str, Any] = {**access.client_config(), "error_cb": self.complaints}
        self.client: AdminClient | None = AdminClient(config, logger=DRIVER_LOG)

    def open(self) -> AdminClient:
        """Return the client; not to be kept."""
        if self.client is None:
            raise MrcError("INVARIANT", "a closed connection was used")
        return self.client

    def hang_up(self) -> None:
        self.client = None


class Admin:
    """Admin requests whose answers are waited for up to a deadline. Safe for several threads; a connection serves one call at a time.

    Args:
        access: the cluster and the principal.
        where: the region's name, for errors.
        deadline_s: what a call may take in all; less than `DRIVER_TIMEOUT_S`.
    """

    def __init__(self, access: Access, where: str, deadline_s: float) -> None:
        self._access = access
        self.where = where
        self.deadline_s = min(deadline_s, DRIVER_TIMEOUT_S / 2)
        self._lock = threading.Lock()
        self._idle: list[_Line] = []

    def close(self) -> None:
        """Drop the idle connections; later calls make others."""
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.hang_up()

    def ask(self, what: str, call: Callable[[AdminClient], Mapping[K, Future[Any]]]) -> dict[K, Any | KafkaError]:
        """Start a call and return, per key, its result or the driver's error for that key.

        Raises:
            MrcError: the credentials were refused, or some key had no answer within the deadline.
        """
        line = self._take()
        try:
            answers = self._wait(line, what, call)
        except BaseException:
            line.hang_up()
            raise
        self._give_back(line)
        return answers

    def ask_now(self, call: Callable[[AdminClient], T]) -> T:
        """Do a call that waits by itself; ``call`` passes `deadline_s` to the driver. Raises world errors."""
        line = self._take()
        began_s = time.monotonic()
        try:
            answer = call(line.open())
        except KafkaException as error:
            line.open().poll(0)
            line.hang_up()
            line.complaints.raise_refused(began_s, self.where)
            raise world_error(error.args[0], self.where) from error
        self._give_back(line)
        return answer

    def ask_all(self, what: str, call: Callable[[AdminClient], Mapping[K, Future[Any]]]) -> dict[K, Any]:
        """Like `ask`, and the first key's error is raised."""
        answers = self.ask(what, call)
        for answer in answers.values():
            if isinstance(answer, KafkaError):
                raise self.error(answer, what)
        return answers

    def ask_one(self, what: str, call: Callable[[AdminClient], Future[Any]]) -> Any:  # the driver's result types are its own
        """Like `ask_all` for a call with a single answer."""
        return self.ask_all(what, lambda client: {"": call(client)})[""]

    def error(self, error: KafkaError, what: str) -> MrcError:
        """Return mrc's error for one key's error."""
        return world_error(error, f"{self.where} {what}".strip())

    def _take(self) -> _Line:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Line(self._access)

    def _give_back(self, line: _Line) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_MAX:
                self._idle.append(line)
                return
        line.hang_up()

    def _wait(self, line: _Line, what: str, call: Callable[[AdminClient], Mapping[K, Future[Any]]]) -> dict[K, Any | KafkaError]:
        line.open().poll(0)  # Old complaints are not about this call.
        began_s = time.monotonic()
        try:
            futures = call(line.open())
        except KafkaException as error:
            raise world_error(error.args[0], self.where) from error
        left = set(futures.values())
        while left:
            left = wait(left, timeout=_SLICE_S).not_done
            line.open().poll(0)
            if left:
                line.complaints.raise_refused(began_s, self.where)
                if time.monotonic() - began_s > self.deadline_s:
                    raise unreachable(self.where, what, self.deadline_s)
        return {key: _answer(future) for key, future in futures.items()}


def _answer(future: Future[Any]) -> Any | KafkaError:  # the driver's result types are its own
    try:
        return future.result(timeout=0)
    except KafkaException as error:
        return error.args[0]
