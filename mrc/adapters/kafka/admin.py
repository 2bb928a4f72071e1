"""One administrative connection, its deadline and its way of waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from mrc.adapters.kafka.access import DRIVER_LOG, Access
from mrc.adapters.kafka.errors import Complaints, unreachable, world_error
from mrc.core.errors import MrcError

K = TypeVar("K")

_SLICE_S = 0.05
"""How long a refused password may go unseen."""


class Admin:
    """A lazily made `AdminClient` whose answers are waited for up to a deadline. Safe for several threads.

    Args:
        access: the cluster and the principal.
        where: the region's name, for errors.
        deadline_s: what a call may take in all.
    """

    def __init__(self, access: Access, where: str, deadline_s: float) -> None:
        self._access = access
        self.where = where
        self.deadline_s = deadline_s
        self._complaints = Complaints()
        self._lock = threading.Lock()
        self._client: AdminClient | None = None

    def client(self) -> AdminClient:
        """Return the one client."""
        with self._lock:
            if self._client is None:
                self._client = AdminClient({**self._access.client_config(), "error_cb": self._complaints}, logger=DRIVER_LOG)  # type: ignore[dict-item]  # callbacks are missing in the stub
            return self._client

    def close(self) -> None:
        """Drop the connection; the next call makes another."""
        with self._lock:
            self._client = None

    def ask(self, what: str, call: Callable[[AdminClient], Mapping[K, Future[Any]]]) -> dict[K, Any | KafkaError]:
        """Start a call and return, per key, its result or the driver's error for that key.

        Raises:
            MrcError: the credentials were refused, or some key had no answer within the deadline.
        """
        client = self.client()
        client.poll(0)  # Old complaints are not about this call.
        began_s = time.monotonic()
        try:
            futures = call(client)
        except KafkaException as error:
            raise world_error(error.args[0], self.where) from error
        left = set(futures.values())
        while left:
            left = wait(left, timeout=_SLICE_S).not_done
            client.poll(0)
            if left and time.monotonic() - began_s > self.deadline_s:
                self._complaints.raise_refused(began_s, self.where)
                raise unreachable(self.where, what, self.deadline_s)
            if left:
                self._complaints.raise_refused(began_s, self.where)
        answers = {key: self._answer(future) for key, future in futures.items()}
        if any(isinstance(answer, KafkaError) and answer.code() == KafkaError._TIMED_OUT for answer in answers.values()):
            self._complaints.raise_refused(began_s, self.where)
            raise unreachable(self.where, what, self.deadline_s)
        return answers

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

    def _answer(self, future: Future[Any]) -> Any | KafkaError:  # the driver's result types are its own
        try:
            return future.result(timeout=0)
        except KafkaException as error:
            return error.args[0]
