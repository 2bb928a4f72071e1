"""Fingerprints of what was taken lately outlive the process, and are bounded."""

from __future__ import annotations

from mrc.core.model import Region
from mrc.resolver.lately import ROW_LENGTH, ROWS_MAX, Lately, prefix

WEST = Region("west")
HELD_MAX = ROW_LENGTH * ROWS_MAX


def test_what_was_taken_lately_is_known_by_whoever_goes_on_and_what_is_older_is_not() -> None:
    rows: dict[bytes, bytes] = {}
    lately = Lately(WEST, ())
    count = HELD_MAX + 3 * ROW_LENGTH // 2
    for fingerprint in range(count):
        if fingerprint % 100 == 0:
            rows = _written(rows, lately)
            lately = Lately(WEST, sorted(rows.items()))
        lately.add(fingerprint)
    rows = _written(rows, lately)
    for one in (lately, Lately(WEST, sorted(rows.items()))):
        assert count - 1 in one
        assert count - HELD_MAX + ROW_LENGTH in one
        assert count - HELD_MAX - ROW_LENGTH not in one
    assert len(rows) == ROWS_MAX
    assert all(key.startswith(prefix(WEST)) for key in rows)


def test_one_of_which_there_were_two_is_known_until_both_are_old() -> None:
    lately = Lately(WEST, ())
    for fingerprint in (1, *range(100, 99 + ROW_LENGTH), 1, *range(1_000, 1_000 + HELD_MAX - ROW_LENGTH)):
        lately.add(fingerprint)
    assert 1 in lately
    assert 100 not in lately
    for fingerprint in range(20_000, 20_000 + ROW_LENGTH):
        lately.add(fingerprint)
    assert 1 not in lately


def test_nothing_is_written_where_nothing_was_taken() -> None:
    lately = Lately(WEST, ())
    assert lately.writes() == {}
    lately.add(7)
    assert len(lately.writes()) == 1
    assert lately.writes() == {}


def _written(rows: dict[bytes, bytes], lately: Lately) -> dict[bytes, bytes]:
    found = dict(rows)
    for key, value in lately.writes().items():
        if value is None:
            del found[key]
        else:
            found[key] = value
    return found
