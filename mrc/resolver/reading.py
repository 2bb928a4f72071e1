"""From a record to an event: what it must look like, and the reason where it does not.

What makes a record an event (key, stamp, JSON) is the same by all rules. Its type and the fields that rules look at are read as the rules
say that are in force when its turn comes, so where those cannot be read it is an event all the same until then.

Invariant: the answer depends on the record, the kind and the region it came from alone, so a copy is read as its original is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from mrc.core.conflict.events import EntityEvent, Json
from mrc.core.conflict.headers import NAMES, Stamp, Unreadable, read_stamp
from mrc.core.conflict.taking import Pending, Wrong
from mrc.core.model import Region
from mrc.ports import Arrived
from mrc.resolver.kinds import Kind, Place

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 256 * 1024
TYPE_CHARACTERS_MAX = 200
NESTED_MAX = 500
"""Of a whole value. The decoder takes nearly a thousand, but the fewer, the deeper in the program it is called."""

DEPTH_MAX = 32
FIELD_BYTES_MAX = 16 * 1024
"""Of what rules look at: an entity's state keeps every field's last value of every region."""

SUMMAND_MAX = 2**40
"""Sums of millions of these fit into 64 bits."""

_INT_MAX = 2**63


def read_event(record: Arrived, kind: Kind, origin: Region) -> tuple[EntityEvent, Wrong | None]:
    """Return the event that a record of ``origin``'s log is, and why its type and fields cannot be read as ``kind`` says, if so.

    Raises:
        Unreadable: with the reason, where it is no event by any rules.
    """
    key = _key_of(record)
    stamp = read_stamp(record.headers)
    if stamp.origin != origin:
        raise Unreadable("wrong-origin", f"it says to be of {stamp.origin} and stands in the log of {origin}")
    if not stamp.vector.keys() <= kind.rules.regions:
        unknown = ", ".join(sorted(stamp.vector.keys() - kind.rules.regions))
        raise Unreadable("unknown-region", f"its writer has seen events of {unknown}, which the rules do not know")
    return _event(record, kind, key, stamp)


def check(record: Arrived) -> None:
    """Raise `Unreadable` where a record is no event by any rules, whatever its stamp."""
    _key_of(record)
    if record.value is not None:
        _object(record.value)


def stamped(record: Arrived, kind: Kind, stamp: Stamp) -> tuple[EntityEvent, Wrong | None]:
    """Return, as `read_event`, the event that a record is which has passed `check`, with a stamp that its headers do not say."""
    return _event(record, kind, (record.key or b"").decode(), stamp)


def fingerprint(record: Arrived) -> int:
    """Return 64 bits of all that a replicator keeps of a record: key, timestamp, value and headers."""
    said = _pack((record.key, record.timestamp_ms, record.value, record.headers))
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest())


def read_again(one: Pending, kind: Kind) -> None:
    """Read an event's type and fields as ``kind`` says; whatever they were read by before.

    It was read when it came, so it is an object; one that was written down by an earlier version may be nested too deep for that here.
    """
    try:
        data = {} if one.body is None else _object(one.body)
    except Unreadable as error:
        one.wrong = Wrong(error.reason, error.detail)
        return
    type, fields, one.wrong = _looked_at(_Looked(one.key.decode(), one.headers, data, one.body is None), kind)
    one.event = msgspec.structs.replace(one.event, type=type, fields=fields)


def others(headers: tuple[tuple[str, bytes | None], ...]) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers that are no stamp."""
    return () if len(headers) == len(NAMES) else tuple(one for one in headers if one[0] not in NAMES)


def _event(record: Arrived, kind: Kind, key: str, stamp: Stamp) -> tuple[EntityEvent, Wrong | None]:
    deleted = record.value is None
    data = {} if record.value is None else _object(record.value)
    type, fields, wrong = _looked_at(_Looked(key, record.headers, data, deleted), kind)
    event = EntityEvent(f"{kind.name}/{key}", stamp.id, stamp.origin, stamp.number, stamp.seen, stamp.hlc, type, fields, deleted)
    return event, wrong


class _Looked(NamedTuple):
    """What rules may look at of a record."""

    key: str
    headers: tuple[tuple[str, bytes | None], ...]
    data: Mapping[str, Json]
    deleted: bool


def _looked_at(record: _Looked, kind: Kind) -> tuple[str, Mapping[str, Json], Wrong | None]:
    try:
        fields: dict[str, Json] = {}
        for name, at in kind.fields.items():
            value = record.data.get(at.field) if at.field else _at(at, record)
            if value is not None:
                fields[name] = value
                # Small texts and numbers are by far the most frequent, and nothing can be wrong with them.
                if name in kind.rules.summed or not _is_small(value):
                    _check_field(name, value, summed=name in kind.rules.summed)
        return _type(kind.type, record), fields, None
    except Unreadable as error:
        return "", {}, Wrong(error.reason, error.detail)


def _key_of(record: Arrived) -> str:
    """Return the key of a record whose key and value are not too large."""
    if record.key is None:
        raise Unreadable("no-key", "it has no key, so it is about no entity")
    if len(record.key) > KEY_BYTES_MAX:
        raise Unreadable("too-large", f"its key has {len(record.key)} bytes, more than {KEY_BYTES_MAX}")
    try:
        key = record.key.decode()
    except UnicodeDecodeError:
        raise Unreadable("bad-key", "its key is not UTF-8") from None
    if record.value is not None and len(record.value) > VALUE_BYTES_MAX:
        raise Unreadable("too-large", f"its value has {len(record.value)} bytes, more than {VALUE_BYTES_MAX}")
    return key


_decode = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode


_CLOSED_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _nested(value: bytes) -> int:
    """Return how deep JSON is nested."""
    depth = deepest = 0
    for byte in _CLOSED_STRING.sub(b"", value):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _object(value: bytes) -> dict[str, Json]:
    # Counting is quick, and what has few brackets is not nested deep.
    if value.count(b"[") + value.count(b"{") > NESTED_MAX and _nested(value) > NESTED_MAX:
        raise Unreadable("not-json", f"its value is nested deeper than {NESTED_MAX}, which is not read")
    try:
        data = _decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise Unreadable("not-json", f"its value is not JSON: {str(error)[:200]}") from None
    if not isinstance(data, dict):
        raise Unreadable("not-an-object", "its value is JSON and no object")
    return data


def _type(at: Place, record: _Looked) -> str:
    found = _at(at, record)
    if found is None and record.deleted:
        return ""
    if not isinstance(found, str) or not 0 < len(found) <= TYPE_CHARACTERS_MAX:
        raise Unreadable("no-type", f"its type, {_spelt(at)}, is not a text of 1 to {TYPE_CHARACTERS_MAX} characters: {str(found)[:80]!r}")
    return found


def _at(at: Place, record: _Looked) -> Json:
    if at.kind == "json":
        found: Any = record.data
        for name in at.path:
            if not isinstance(found, dict):
                return None
            found = found.get(name)
        return found
    if at.kind == "key":
        return record.key
    values = [value for name, value in record.headers if name == at.path[0]]
    if not values or values[-1] is None:
        return None
    try:
        return values[-1].decode()
    except UnicodeDecodeError:
        raise Unreadable("bad-header", f"header {at.path[0]} is not UTF-8") from None


def _check_field(name: str, value: Json, *, summed: bool) -> None:
    if not _bounded(value, DEPTH_MAX):
        raise Unreadable("bad-field", f"{name} is nested deeper than {DEPTH_MAX}, or holds a number that 64 bits do not")
    if isinstance(value, str | list | dict) and len(msgspec.json.encode(value)) > FIELD_BYTES_MAX:
        raise Unreadable("bad-field", f"{name} has more than {FIELD_BYTES_MAX} bytes")
    if summed and (isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > SUMMAND_MAX):
        raise Unreadable("bad-field", f"{name} is to be summed and is no number from -2^40 to 2^40: {str(value)[:80]!r}")


def _is_small(value: Json) -> bool:
    """Whether it is a number of 64 bits or a text that cannot be too long: in JSON a character takes at most six bytes."""
    if isinstance(value, str):
        return len(value) * 6 + 2 <= FIELD_BYTES_MAX
    return isinstance(value, int) and -_INT_MAX <= value < _INT_MAX


def _bounded(value: Json, depth: int) -> bool:
    if isinstance(value, int):
        return -_INT_MAX <= value < _INT_MAX
    if isinstance(value, dict):
        return depth > 0 and all(_bounded(one, depth - 1) for one in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_bounded(one, depth - 1) for one in value)
    return True


def _spelt(at: Place) -> str:
    return f"json:$.{'.'.join(at.path)}" if at.kind == "json" else ":".join((at.kind, *at.path))
