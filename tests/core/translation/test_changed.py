"""Why no copy is recognised is told from a sample of records and copies."""

from __future__ import annotations

import msgspec
import pytest

from mrc.core.model import Record
from mrc.core.translation.changed import changed

RECORDS = [Record(n, 1000 + n, f"k{n}".encode(), f"v{n}".encode(), (("trace", b"\x01"),)) for n in range(5)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"headers": (("trace", b"AQ=="),)}, "HEADERS_CHANGED"),
        ({"headers": ()}, "HEADERS_CHANGED"),
        ({"timestamp_ms": 7}, "TIMESTAMPS_CHANGED"),
        ({"value": b"masked"}, "RECORDS_CHANGED"),
        ({"value": None}, "RECORDS_CHANGED"),
        ({}, ""),
        ({"key": b"other"}, ""),
    ],
)
def test_what_differs_is_named(change: dict[str, object], code: str) -> None:
    copies = [msgspec.structs.replace(record, offset=record.offset + 100, **change) for record in RECORDS]
    found = changed(RECORDS, copies, stamped=True)
    assert (found.code if found else "") == code


def test_other_timestamps_are_nothing_where_they_do_not_count() -> None:
    assert changed(RECORDS, [msgspec.structs.replace(record, timestamp_ms=7) for record in RECORDS], stamped=False) is None
    assert changed([], RECORDS, stamped=True) is None
    assert changed(RECORDS, [], stamped=True) is None
