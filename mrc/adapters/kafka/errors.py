"""What a driver error means: the one place that maps librdkafka's codes to mrc's and says what may be retried."""

from __future__ import annotations

import threading
import time

from confluent_kafka import KafkaError

from mrc.core.errors import MrcError

_AUTHENTICATION = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM})
_AUTHORIZATION = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_UNKNOWN_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
_LIVE_GROUP = frozenset(
    {
        # A broker answers a commit from outside the group with "unknown member" while the group has members.
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.GROUP_SUBSCRIBED_TO_TOPIC,
    }
)
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_OUT_OF_RANGE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})


def world_error(error: KafkaError, where: str) -> MrcError:
    """Return mrc's error for a driver error.

    Everything that is not recognised is `CLUSTER_UNREACHABLE`: retryable, with the driver's words, so that a new kind of
    failure stops nothing for good and is still seen.
    """
    code, words = error.code(), error.str()
    if code in _AUTHENTICATION:
        return MrcError("AUTHENTICATION_FAILED", words, where=where)
    if code in _AUTHORIZATION:
        return MrcError("AUTHORIZATION_FAILED", words, where=where)
    if code in _UNKNOWN_TOPIC:
        return MrcError("UNKNOWN_TOPIC", words, where=where)
    if code in _LIVE_GROUP:
        return MrcError("GROUP_HAS_MEMBERS", words, where=where, retryable=True)
    if code in _OUT_OF_RANGE:
        return MrcError("OFFSET_OUT_OF_RANGE", words, where=where)
    if code in _TOO_LARGE:
        return MrcError("RECORD_TOO_LARGE", words, where=where)
    if code == KafkaError.POLICY_VIOLATION:
        return MrcError("POLICY_VIOLATION", words, where=where)
    if code == KafkaError.UNSTABLE_OFFSET_COMMIT:
        return MrcError("OPEN_TRANSACTION", words, where=where, retryable=True)
    if code == KafkaError.SECURITY_DISABLED:
        return MrcError("UNSAFE_TO_FENCE", "the cluster has no authorizer", where=where)
    return MrcError("CLUSTER_UNREACHABLE", f"{error.name()}: {words}", where=where, retryable=True)


def unreachable(where: str, what: str, deadline_s: float) -> MrcError:
    """Return the error of a call that had no answer in time."""
    return MrcError("CLUSTER_UNREACHABLE", f"{what}: no answer within {deadline_s:g} s", where=where, retryable=True)


class Complaints:
    """What a client said on the side: a wrong password never reaches a call's answer, the call only times out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: tuple[float, KafkaError] | None = None
        self._down = False

    def __call__(self, error: KafkaError) -> None:
        """Take a driver's complaint; librdkafka calls this from `poll`."""
        with self._lock:
            if error.code() in _AUTHENTICATION:
                self._refused = (time.monotonic(), error)
            self._down = self._down or error.code() in (KafkaError._ALL_BROKERS_DOWN, *_AUTHENTICATION)

    def raise_refused(self, since_s: float, where: str) -> None:
        """Raise `AUTHENTICATION_FAILED` when credentials were refused after ``since_s`` (monotonic)."""
        with self._lock:
            refused = self._refused
        if refused is not None and refused[0] >= since_s:
            raise world_error(refused[1], where)

    def take_down(self) -> bool:
        """Return whether all brokers were lost, or refused the credentials, since the last time this was asked."""
        with self._lock:
            down, self._down = self._down, False
            return down
