"""Bytes as people read them: text where it is text, hexadecimal where it is not, shortened, and never a control character."""

from __future__ import annotations

SHOWN_MAX = 120
"""Characters of a key, a value or a header that are shown."""


def shown(data: bytes | None) -> str:
    """Return ``data`` for a terminal: printable UTF-8 as it is, anything else as ``0x…``; empty for None.

    What is longer than `SHOWN_MAX` ends with ``…``.
    """
    if data is None:
        return ""
    head = data[: 4 * SHOWN_MAX]  # a character has at most four bytes
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # A character that was cut in two at the end of the head is no reason to call it binary.
        cut = len(head) < len(data) and error.start >= len(head) - 3
        text = head[: error.start].decode() if cut else "\0"
    if not text.isprintable():
        text = f"0x{head.hex()}"
    return text if len(text) <= SHOWN_MAX and len(head) == len(data) else f"{text[:SHOWN_MAX]}…"
