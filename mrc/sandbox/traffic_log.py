"""What the traffic writes down: one JSON array per line, whole lines only.

Owns the events' form and the logs' form. Invariant: a line is written after the fact that it states, and a processed
event's line before its position is committed; a killed process may leave out its last facts and tear its last line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mrc.core.model import decoder


class Event(msgspec.Struct, frozen=True):
    """An order event: the value of every record of the traffic.

    Attributes:
        id: unique; the same when it is sent again.
        key: the record's key.
        seq: counts the events of this key in this topic, from 0.
        amount_cents: what the order is about.
        made_at_s: wall-clock seconds since the epoch.
    """

    id: str
    key: str
    seq: int
    amount_cents: int
    made_at_s: float


class Acked(msgspec.Struct, frozen=True, array_like=True, tag="acked"):
    """All in-sync replicas of ``region`` acknowledged the event at ``offset``. ``resent``: an earlier sending had no answer."""

    at_s: float
    region: str
    epoch: int
    topic: str
    partition: int
    offset: int
    key: str
    seq: int
    id: str
    resent: bool = False


class InDoubt(msgspec.Struct, frozen=True, array_like=True, tag="in-doubt"):
    """The event was sent and nothing acknowledged it: it may be in the log of ``region`` or not."""

    at_s: float
    region: str
    epoch: int
    topic: str
    key: str
    seq: int
    id: str
    reason: str


class Processed(msgspec.Struct, frozen=True, array_like=True, tag="processed"):
    """The group has processed the event that it read in ``region``."""

    at_s: float
    region: str
    epoch: int
    group: str
    topic: str
    partition: int
    offset: int
    id: str


class Turn(msgspec.Struct, frozen=True, array_like=True, tag="turn"):
    """A client started or left a place; ``who`` is ``producer`` or a group. For people; nothing is judged by it."""

    at_s: float
    who: str
    region: str
    epoch: int
    what: str
    detail: str = ""


Line = Acked | InDoubt | Processed | Turn

_EVENT_ENCODER = msgspec.json.Encoder()
_EVENT_DECODER = decoder(Event)
_LINE_DECODER: msgspec.json.Decoder[Line] = decoder(Line)  # type: ignore[arg-type]


def encode_event(event: Event) -> bytes:
    """Return the record value of ``event``."""
    return _EVENT_ENCODER.encode(event)


def decode_event(value: bytes | None) -> Event | None:
    """Return the event in a record's value; None where it is somebody else's record."""
    try:
        return _EVENT_DECODER.decode(value) if value else None
    except msgspec.DecodeError:
        return None


class LogWriter:
    """One process's or thread's own log file. Lines are kept until `flush`, which writes them in one call."""

    def __init__(self, path: Path) -> None:
        """Make or append to ``path``."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()

    def write(self, line: Line) -> None:
        """Add a line."""
        self._buffer += self._encoder.encode(line)
        self._buffer += b"\n"

    def turn(self, who: str, region: str, epoch: int, what: str, detail: str = "") -> None:
        """Add a `Turn` of now."""
        self.write(Turn(time.time(), who, region, epoch, what, detail))

    def flush(self) -> None:
        """Hand all lines to the operating system: they survive the death of this process."""
        while self._buffer:
            written = os.write(self._descriptor, self._buffer)
            del self._buffer[:written]

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        os.close(self._descriptor)


T = TypeVar("T", Acked, InDoubt, Processed, Turn)


class Logs:
    """All logs of a folder, read on from where the last reading stopped.

    A last line without its end is left for the next reading; in the end it belongs to a killed process and counts as nothing.
    """

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self._folder = folder
        self._read_bytes: dict[Path, int] = {}
        self.acked: list[Acked] = []
        self.in_doubt: list[InDoubt] = []
        self.processed: list[Processed] = []
        self.turns: list[Turn] = []

    def refresh(self) -> Logs:
        """Read what was written since; returns itself."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read_bytes.get(path, 0))
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._read_bytes[path] = self._read_bytes.get(path, 0) + whole
            self.add(parse(data[:whole]))
        return self

    def copy(self) -> Logs:
        """Return what was read so far, for it to stay as it is."""
        made = Logs(self._folder)
        made.acked, made.in_doubt, made.processed, made.turns = [*self.acked], [*self.in_doubt], [*self.processed], [*self.turns]
        return made

    def add(self, lines: Iterable[Line]) -> Logs:
        """Take lines from elsewhere; returns itself."""
        for line in lines:
            match line:
                case Acked():
                    self.acked.append(line)
                case Processed():
                    self.processed.append(line)
                case InDoubt():
                    self.in_doubt.append(line)
                case Turn():
                    self.turns.append(line)
        return self


def parse(data: bytes) -> Iterator[Line]:
    """Return the lines of ``data``. Raises msgspec.DecodeError where one is not of the traffic."""
    for line in data.splitlines():
        yield _LINE_DECODER.decode(line)
