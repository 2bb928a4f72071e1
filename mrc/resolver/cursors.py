"""Where somebody who follows a region's conflicts goes on: the positions behind what was handed out, as one opaque text."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Span

CURSOR_CHARACTERS_MAX = 48 * 1024
"""Room for some thousand partitions."""

_Place = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Literal[1], str, dict[str, list[_Place]]]).decode


def cursor_of(here: Region, positions: Mapping[TopicPartition, Offset]) -> str:
    """Return the cursor of these positions in region ``here``; they are of every partition of each topic."""
    told: dict[str, list[int]] = {}
    for tp in sorted(positions):
        told.setdefault(tp.topic, []).append(positions[tp])
    return base64.urlsafe_b64encode(_encode((1, here, told))).decode().rstrip("=")


def positions_of(cursor: str, here: Region, spans: Mapping[TopicPartition, Span]) -> dict[TopicPartition, Offset]:
    """Return where to go on by a cursor; a partition that it does not know is read from its beginning.

    Args:
        cursor: as `cursor_of` has made it.
        here: the region that is read.
        spans: what is read holds now.

    Raises:
        MrcError: ``BAD_REQUEST`` where it is no cursor, or another region's; ``OFFSET_OUT_OF_RANGE`` where a log has its place no more.
    """
    try:
        # Strict: without that, base64 leaves out what is none.
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        _, region, told = _decode(raw)
    except (ValueError, msgspec.MsgspecError):
        raise MrcError("BAD_REQUEST", "cursor is none that a stream of conflicts has handed out", where="cursor") from None
    if region != here:
        raise MrcError(
            "BAD_REQUEST", f"cursor is of {region[:80]!r}, and {here} is asked: its conflicts stand at other places", where="cursor"
        )
    found = {}
    for tp, span in spans.items():
        places = told.get(tp.topic, [])
        place = places[tp.partition] if tp.partition < len(places) else span.begin
        if place < span.begin:
            message = f"conflicts from {place} to {span.begin} were deleted before they were asked for"
            raise MrcError("OFFSET_OUT_OF_RANGE", message, where=f"{here} {tp}")
        if place > span.end:
            message = f"{place} is behind the log's end, {span.end}: it was made anew, or its new leader has not heard of its end yet"
            raise MrcError("OFFSET_OUT_OF_RANGE", message, where=f"{here} {tp}", retryable=True)
        found[tp] = Offset(place)
    return found
