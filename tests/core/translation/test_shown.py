"""Bytes for people: short, and harmless to a terminal."""

from __future__ import annotations

import pytest

from mrc.core.translation.shown import SHOWN_MAX, shown


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, ""),
        (b"", ""),
        (b'{"id": 7}', '{"id": 7}'),
        ("grün".encode(), "grün"),
        (b"\xff\x00", "0xff00"),
        (b"a\x1b[2J", "0x611b5b324a"),
        (b"two\nlines", "0x74776f0a6c696e6573"),
    ],
)
def test_text_is_shown_as_text_and_anything_else_in_hexadecimal(data: bytes | None, text: str) -> None:
    assert shown(data) == text


@pytest.mark.parametrize(
    "data", [b"x" * 10_000, "é".encode() * 10_000, b"\x00" * 10_000, "😀".encode() * 10_000, b"a" + "😀".encode() * 200]
)
def test_what_is_long_is_cut_and_says_so(data: bytes) -> None:
    text = shown(data)
    assert len(text) == SHOWN_MAX + 1
    assert text.endswith("…")
    assert text.startswith("0x") == (data[:1] == b"\x00")


def test_what_fits_is_whole() -> None:
    assert shown(b"x" * SHOWN_MAX) == "x" * SHOWN_MAX
