"""Positions of groups, read and committed with their metadata byte for byte.

The Python driver (confluent-kafka 2.16) takes metadata for a text that ends with a NUL: it sends one byte too many, and reads
beyond the end of what a Java application has stored. Kafka Streams keeps its partition time there. So these two calls are made to
the C library beneath the driver, which counts bytes. Where that library is not at hand nothing can be read or committed.

Source: librdkafka's rdkafka.h; everything used here is part of its stable interface.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import confluent_kafka
from confluent_kafka import KafkaError

from mrc.adapters.kafka.access import Access
from mrc.adapters.kafka.errors import unreachable, world_error
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Position

_PRODUCER = 0
_DESTROY_AT_ONCE = 0x8
_ANY_OPERATION = 0
_SLICE_MS = 50
_IDLE_MAX = 4
_AT_ONCE_MAX = 25
"""Groups asked for, or committed for, at once: the cluster answers them one after the other, and each waits for those before it."""


class _Partition(Structure):
    _fields_ = [
        ("topic", c_char_p),
        ("partition", c_int32),
        ("offset", c_int64),
        ("metadata", c_void_p),
        ("metadata_size", c_size_t),
        ("opaque", c_void_p),
        ("err", c_int),
        ("_private", c_void_p),
    ]


class _Partitions(Structure):
    _fields_ = [("cnt", c_int), ("size", c_int), ("elems", POINTER(_Partition))]


_FUNCTIONS: Mapping[str, tuple[object, tuple[object, ...]]] = {
    "rd_kafka_conf_new": (c_void_p, ()),
    "rd_kafka_conf_set": (c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
    "rd_kafka_conf_destroy": (None, (c_void_p,)),
    "rd_kafka_new": (c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
    "rd_kafka_destroy_flags": (None, (c_void_p, c_int)),
    "rd_kafka_mem_malloc": (c_void_p, (c_void_p, c_size_t)),
    "rd_kafka_topic_partition_list_new": (POINTER(_Partitions), (c_int,)),
    "rd_kafka_topic_partition_list_add": (POINTER(_Partition), (POINTER(_Partitions), c_char_p, c_int32)),
    "rd_kafka_topic_partition_list_destroy": (None, (POINTER(_Partitions),)),
    "rd_kafka_AlterConsumerGroupOffsets_new": (c_void_p, (c_char_p, POINTER(_Partitions))),
    "rd_kafka_AlterConsumerGroupOffsets_destroy": (None, (c_void_p,)),
    "rd_kafka_AlterConsumerGroupOffsets": (None, (c_void_p, POINTER(c_void_p), c_size_t, c_void_p, c_void_p)),
    "rd_kafka_ListConsumerGroupOffsets_new": (c_void_p, (c_char_p, POINTER(_Partitions))),
    "rd_kafka_ListConsumerGroupOffsets_destroy": (None, (c_void_p,)),
    "rd_kafka_ListConsumerGroupOffsets": (None, (c_void_p, POINTER(c_void_p), c_size_t, c_void_p, c_void_p)),
    "rd_kafka_AdminOptions_new": (c_void_p, (c_void_p, c_int)),
    "rd_kafka_AdminOptions_destroy": (None, (c_void_p,)),
    "rd_kafka_AdminOptions_set_require_stable_offsets": (c_void_p, (c_void_p, c_int)),
    "rd_kafka_queue_new": (c_void_p, (c_void_p,)),
    "rd_kafka_queue_destroy": (None, (c_void_p,)),
    "rd_kafka_queue_poll": (c_void_p, (c_void_p, c_int)),
    "rd_kafka_event_destroy": (None, (c_void_p,)),
    "rd_kafka_event_error": (c_int, (c_void_p,)),
    "rd_kafka_event_AlterConsumerGroupOffsets_result": (c_void_p, (c_void_p,)),
    "rd_kafka_AlterConsumerGroupOffsets_result_groups": (POINTER(c_void_p), (c_void_p, POINTER(c_size_t))),
    "rd_kafka_event_ListConsumerGroupOffsets_result": (c_void_p, (c_void_p,)),
    "rd_kafka_ListConsumerGroupOffsets_result_groups": (POINTER(c_void_p), (c_void_p, POINTER(c_size_t))),
    "rd_kafka_group_result_error": (c_void_p, (c_void_p,)),
    "rd_kafka_group_result_partitions": (POINTER(_Partitions), (c_void_p,)),
    "rd_kafka_error_code": (c_int, (c_void_p,)),
}


@cache
def _library() -> ctypes.CDLL:
    """Return the driver's own C library."""
    beside = Path(confluent_kafka.__file__).parent.parent
    for folder in ("confluent_kafka.libs", "confluent_kafka/.dylibs"):
        for path in sorted((beside / folder).glob("librdkafka*")):
            library = ctypes.CDLL(str(path))
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
            return library
    raise MrcError("INVARIANT", "librdkafka is not beside the Python driver: install confluent-kafka as a wheel", where=str(beside))


class GroupPositions:
    """Reads and commits positions. Safe for several threads: each call has a connection to itself while it lasts.

    Args:
        access: the cluster and the principal.
        region: for errors.
        deadline_s: what a call may take, per `_AT_ONCE_MAX` groups. One that is over it ends its connection: see
            `mrc.adapters.kafka.admin`.
    """

    def __init__(self, access: Access, region: str, deadline_s: float) -> None:
        self._access = access
        self._region = region
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._idle: list[int] = []

    def close(self) -> None:
        """Drop the idle connections; later calls make others."""
        with self._lock:
            idle, self._idle = self._idle, []
        for handle in idle:
            _library().rd_kafka_destroy_flags(handle, _DESTROY_AT_ONCE)

    def read(self, groups: Sequence[str]) -> dict[str, dict[TopicPartition, Position]]:
        """Return the stable positions of each group; partitions without one are absent. Raises world errors."""
        library = _library()
        found: dict[str, dict[TopicPartition, Position]] = {}
        for lot in _lots(groups):
            with self._connection() as handle, ExitStack() as stack:
                options = library.rd_kafka_AdminOptions_new(handle, _ANY_OPERATION)
                stack.callback(library.rd_kafka_AdminOptions_destroy, options)
                library.rd_kafka_AdminOptions_set_require_stable_offsets(options, 1)
                asked = []
                for group in lot:
                    request = c_void_p(library.rd_kafka_ListConsumerGroupOffsets_new(group.encode(), None))
                    stack.callback(library.rd_kafka_ListConsumerGroupOffsets_destroy, request)
                    asked.append(stack.enter_context(_asked(handle, "List", request, options, f"positions of {group}")))
                for group, one in zip(lot, asked, strict=True):
                    found[group] = _positions(self._answer(one))
        return found

    def commit(self, wanted: Mapping[str, Mapping[TopicPartition, Position]]) -> None:
        """Commit for groups without members. Raises world errors and ``GROUP_HAS_MEMBERS``.

        Groups and partitions without an error are committed even when another's is raised.
        """
        library = _library()
        for lot in _lots(tuple(wanted)):
            failures = []
            with self._connection() as handle, ExitStack() as stack:
                asked = []
                for group in lot:
                    positions = _partitions(library, handle, wanted[group])
                    request = c_void_p(library.rd_kafka_AlterConsumerGroupOffsets_new(group.encode(), positions))
                    library.rd_kafka_topic_partition_list_destroy(positions)
                    stack.callback(library.rd_kafka_AlterConsumerGroupOffsets_destroy, request)
                    asked.append(stack.enter_context(_asked(handle, "Alter", request, None, f"commit for {group}")))
                for one in asked:
                    try:
                        self._answer(one)
                    except MrcError as error:
                        failures.append(error)
                if failures:
                    raise failures[0]

    # -- inside

    @contextmanager
    def _connection(self) -> Iterator[int]:
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        handle = handle or self._connect()
        try:
            yield handle
        except BaseException:
            # Ending a connection to a hanging broker may take a while: nobody waits for it.
            threading.Thread(target=_library().rd_kafka_destroy_flags, args=(handle, _DESTROY_AT_ONCE), daemon=True).start()
            raise
        with self._lock:
            if len(self._idle) < _IDLE_MAX:
                self._idle.append(handle)
                return
        _library().rd_kafka_destroy_flags(handle, _DESTROY_AT_ONCE)

    def _connect(self) -> int:
        library = _library()
        said = ctypes.create_string_buffer(512)
        config = library.rd_kafka_conf_new()
        for name, value in {**self._access.client_config(), "log_level": 0}.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if library.rd_kafka_conf_set(config, name.encode(), text.encode(), said, len(said)):
                library.rd_kafka_conf_destroy(config)
                raise MrcError("INVARIANT", f"setting {name}: {said.value.decode()}", where=self._region)
        handle: int | None = library.rd_kafka_new(_PRODUCER, config, said, len(said))
        if handle is None:
            library.rd_kafka_conf_destroy(config)
            raise MrcError("CLUSTER_UNREACHABLE", said.value.decode(), where=self._region, retryable=True)
        return handle

    def _answer(self, asked: _Asked) -> list[_Partition]:
        """Wait, check the errors of the call, of the group and of each partition; the partitions are valid as long as ``asked`` is."""
        library = _library()
        while not asked.event:
            if time.monotonic() > asked.since_s + self._deadline_s:
                raise unreachable(self._region, asked.what, self._deadline_s)
            asked.event = library.rd_kafka_queue_poll(asked.queue, _SLICE_MS)
        self._raise(library.rd_kafka_event_error(asked.event), asked.what)
        result = getattr(library, f"rd_kafka_event_{asked.verb}ConsumerGroupOffsets_result")(asked.event)
        count = c_size_t()
        answers = getattr(library, f"rd_kafka_{asked.verb}ConsumerGroupOffsets_result_groups")(result, byref(count))
        found: list[_Partition] = []
        for number in range(count.value):
            error = library.rd_kafka_group_result_error(answers[number])
            self._raise(library.rd_kafka_error_code(error) if error else 0, asked.what)
            partitions = library.rd_kafka_group_result_partitions(answers[number])
            if partitions:
                found += [partitions.contents.elems[at] for at in range(partitions.contents.cnt)]
        for one in found:
            self._raise(one.err, f"{asked.what} {one.topic.decode()}-{one.partition}")
        return found

    def _raise(self, code: int, what: str) -> None:
        if code:
            raise world_error(KafkaError(code), f"{self._region} {what}")


@dataclass
class _Asked:
    """A request that is on its way, and its answer once it has been waited for."""

    verb: str
    what: str
    queue: int
    since_s: float
    event: int | None = None


@contextmanager
def _asked(handle: int, verb: str, request: c_void_p, options: int | None, what: str) -> Iterator[_Asked]:
    """Send a request; its answer comes to a queue of its own, which lives as long as the block."""
    library = _library()
    one = _Asked(verb, what, library.rd_kafka_queue_new(handle), time.monotonic())
    try:
        getattr(library, f"rd_kafka_{verb}ConsumerGroupOffsets")(handle, byref(request), 1, options, one.queue)
        yield one
    finally:
        if one.event:
            library.rd_kafka_event_destroy(one.event)
        library.rd_kafka_queue_destroy(one.queue)


def _lots(groups: Sequence[str]) -> Iterator[Sequence[str]]:
    """Return the groups in as many at once as a call's deadline allows for."""
    for begin in range(0, len(groups), _AT_ONCE_MAX):
        yield groups[begin : begin + _AT_ONCE_MAX]


def _positions(partitions: list[_Partition]) -> dict[TopicPartition, Position]:
    found: dict[TopicPartition, Position] = {}
    for one in partitions:
        if one.offset >= 0:
            text = ctypes.string_at(one.metadata, one.metadata_size) if one.metadata else b""
            # The driver, as it commits, adds a NUL; what it adds is no part of the text.
            position = Position(Offset(one.offset), text.decode(errors="replace").removesuffix("\0"))
            found[TopicPartition(one.topic.decode(), one.partition)] = position
    return found


def _partitions(library: ctypes.CDLL, handle: int, positions: Mapping[TopicPartition, Position]) -> ctypes._Pointer[_Partitions]:
    made: ctypes._Pointer[_Partitions] = library.rd_kafka_topic_partition_list_new(len(positions))
    for tp, position in positions.items():
        one = library.rd_kafka_topic_partition_list_add(made, tp.topic.encode(), tp.partition).contents
        one.offset = position.offset
        text = position.metadata.encode()
        if text:
            one.metadata = library.rd_kafka_mem_malloc(handle, len(text))  # the list frees it
            one.metadata_size = len(text)
            ctypes.memmove(one.metadata, text, len(text))
    return made
