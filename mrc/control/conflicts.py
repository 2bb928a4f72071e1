"""The methods of `ConflictService`: from a request to the region's docket and back.

A conflict travels as the resolver wrote it, field by field, with the applications' own values as JSON text: protobuf has no form that
keeps every number.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from mrc.control.service import Caller, Dockets
from mrc.core.conflict.events import Json
from mrc.core.errors import MrcError
from mrc.core.model import convert, decode, encode
from mrc.resolver.audit import Filter, News, Stats
from mrc.resolver.deciding import Answer
from mrc.resolver.docket import unknown
from mrc.resolver.writing import ConflictRecord

LISTED_MAX = 200
"""So many conflicts are held for one `ListConflicts`, of each partition."""

LISTED = 20
WAIT_S_MAX = 30.0
HEARTBEAT_S = 5.0
"""How long a stream says nothing where nothing comes."""

# ---------------------------------------------------------------- methods


def newest(dockets: Dockets, request: Any, caller: Caller) -> Iterator[dict[str, Any]]:
    """Yield the newest conflicts."""
    if request.limit > LISTED_MAX:
        raise MrcError("BAD_REQUEST", f"limit is {request.limit}; at most {LISTED_MAX} are listed", where="limit")
    with dockets.docket(request.replication_group, request.topic, caller.check) as docket:
        found = docket.newest(_filter(request), request.limit or LISTED)
    for one in found:
        yield told(one)


def find(dockets: Dockets, request: Any, caller: Caller) -> dict[str, Any]:
    """Return one conflict."""
    with dockets.docket(request.replication_group, request.topic, caller.check) as docket:
        found = docket.find(request.conflict_id)
    if found is None:
        raise unknown(request.conflict_id, docket.here)
    return told(found)


def tail(dockets: Dockets, request: Any, caller: Caller) -> Iterator[dict[str, Any]]:
    """Yield conflicts as they become final; where there are none, every `HEARTBEAT_S` how far that is."""
    said_s = -HEARTBEAT_S
    with dockets.docket(request.replication_group, request.topic, caller.check) as docket:
        for news in docket.follow(_filter(request), request.cursor):
            now_s = time.monotonic()
            if news.conflict is not None or now_s - said_s >= HEARTBEAT_S:
                said_s = now_s
                yield {"conflict": None if news.conflict is None else told(news.conflict), "cursor": news.cursor}


def decide(dockets: Dockets, request: Any, caller: Caller) -> dict[str, Any]:
    """Return what has become of a decision."""
    if not 0 <= request.wait_s <= WAIT_S_MAX:
        raise MrcError("BAD_REQUEST", f"wait_s is {request.wait_s:g}; it is 0 to {WAIT_S_MAX:g}", where="wait_s")
    actor = f"{request.actor}, says {caller.actor}" if request.actor else caller.actor
    with dockets.docket(request.replication_group, request.topic, caller.check) as docket:
        answer = docket.decide(request.conflict_id, request.winner, request.token, actor, request.reason, request.wait_s)
    return {
        "state": answer.state,
        "decision": msgspec.to_builtins(answer.decision),
        "why": answer.why,
        "conflict": None if answer.conflict is None else told(answer.conflict),
    }


def count(dockets: Dockets, request: Any, caller: Caller) -> Stats:
    """Return the counts."""
    with dockets.docket(request.replication_group, request.topic, caller.check) as docket:
        return docket.stats(request.since_ms or None)


def _filter(request: Any) -> Filter:
    return Filter(request.entity, request.rule, request.outcome, request.since_ms or None)


# ---------------------------------------------------------------- conflicts as they travel


def told(one: ConflictRecord) -> dict[str, Any]:
    """Return a conflict's message, field by field."""
    plain: dict[str, Any] = msgspec.to_builtins(one)
    del plain["version"]
    for side in plain["candidates"]:
        side["value"] = "" if side["value"] is None else _text(side["value"])
        side["fields"] = {name: _text(value) for name, value in side["fields"].items()}
    return {**plain, "at_ms": one.at_ms, "outcome": one.outcome}


def heard(plain: Any) -> ConflictRecord:
    """Return the conflict of a message that was read. Raises ``VERSION_MISMATCH`` where it is none."""
    try:
        sides = [
            {**side, "value": _value(side["value"]), "fields": {name: _value(text) for name, text in side["fields"].items()}}
            for side in plain["candidates"]
        ]
        return convert({**plain, "candidates": sides}, ConflictRecord, strict=False)
    except (msgspec.MsgspecError, LookupError, TypeError) as error:
        raise MrcError("VERSION_MISMATCH", f"a conflict cannot be read: {error}") from None


def heard_news(plain: Mapping[str, Any]) -> News:
    """Return a message of the stream; raises as `heard`."""
    return News(None if plain["conflict"] is None else heard(plain["conflict"]), plain["cursor"])


def heard_answer(plain: Mapping[str, Any]) -> Answer:
    """Return what has become of a decision; raises as `heard`."""
    conflict = None if plain["conflict"] is None else heard(plain["conflict"])
    try:
        return msgspec.structs.replace(convert({**plain, "conflict": None}, Answer, strict=False), conflict=conflict)
    except msgspec.MsgspecError as error:
        raise MrcError("VERSION_MISMATCH", f"an answer cannot be read: {error}") from None


def _text(value: Json) -> str:
    return encode(value).decode()


def _value(text: str) -> Json:
    return decode(text.encode(), Any) if text else None
