"""Why no copy is recognised: what a converter, a transformation or a broker has changed in all of them.

Looked for only where a flow copies and not one of its copies is equal to its record.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrc.core.model import Record, Value

BYTES_AS_THEY_ARE = {f"{part}.converter": "org.apache.kafka.connect.converters.ByteArrayConverter" for part in ("key", "value", "header")}
"""Settings of a connector that changes no byte, all three: the default header converter turns header bytes into base64 text."""


class Changed(Value, frozen=True):
    """A finding about a topic's copies: a stable code and a sentence with the likely cause."""

    code: str
    message: str


_HEADERS = Changed(
    "HEADERS_CHANGED", "copies carry other headers than their records: header.converter of the flow's connector must be ByteArrayConverter"
)
_TIMESTAMPS = Changed("TIMESTAMPS_CHANGED", "copies carry other timestamps than their records: a transformation of the flow changes them")
_VALUES = Changed("RECORDS_CHANGED", "copies carry other values than their records: a transformation or converter of the flow changes them")


def changed(source: Sequence[Record], target: Sequence[Record], *, stamped: bool) -> Changed | None:
    """Return what differs between records and their copies, by a sample of both; None where no copy is found in it.

    Args:
        stamped: whether timestamps are compared.
    """
    by_content = {(r.key, r.value): r for r in source}
    for copy in target:
        record = by_content.get((copy.key, copy.value))
        if record is not None and record.headers != copy.headers:
            return _HEADERS
        if record is not None and stamped and record.timestamp_ms != copy.timestamp_ms:
            return _TIMESTAMPS
    by_stamp = {(r.key, r.timestamp_ms): r.value for r in source if r.key is not None}
    if any(by_stamp.get((copy.key, copy.timestamp_ms), copy.value) != copy.value for copy in target if copy.key is not None):
        return _VALUES
    return None
