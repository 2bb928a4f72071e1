"""A request to an address of the operator's: the facts as JSON body, one deadline for the whole, no redirect, no proxy, no login.

Invariant: nothing that the server does, or leaves undone, keeps the caller longer than the deadline and the look-up of a name.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mrc.core.errors import MrcError
from mrc.core.failover.plan import is_web_address
from mrc.core.model import encode

ANSWER_BYTES_MAX = 65_536
"""How much of an answer is read; the rest is left."""

_RETRYABLE = frozenset({408, 425, 429})


def send(method: str, url: str, facts: Mapping[str, str], timeout_s: float) -> str:
    """See `mrc.ports.Hook.send`. Raises ``HOOK_FAILED`` with the status, or with why there is none."""
    if not is_web_address(url):
        raise _failed(url, "the address does not begin with http:// or https://, or has a user name in it")
    until_s = time.monotonic() + timeout_s
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    connection.response_class = _until(until_s)
    try:
        body = None if method == "GET" else encode(dict(facts))
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request(method, path, body, {"Content-Type": "application/json", "Connection": "close", "User-Agent": "mrc"})
        answer = connection.getresponse()
        text = answer.read(ANSWER_BYTES_MAX).decode(errors="replace")
    except TimeoutError as error:
        raise _failed(url, f"no answer within {timeout_s:g} s", retryable=True) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failed(url, str(error) or type(error).__name__, retryable=True) from error
    finally:
        connection.close()
    if 200 <= answer.status < 300:
        return text
    if location := answer.getheader("Location"):
        raise _failed(url, f"status {answer.status}; redirects are not followed, here to {location[:200]}")
    lines = text.strip().splitlines()
    said = f": {lines[0][:200]}" if lines else ""
    raise _failed(url, f"status {answer.status}{said}", retryable=answer.status >= 500 or answer.status in _RETRYABLE)


def _failed(url: str, why: str, *, retryable: bool = False) -> MrcError:
    return MrcError("HOOK_FAILED", why, where=url, retryable=retryable)


def _until(until_s: float) -> Any:  # a class of responses to http.client, which calls it and nothing else
    def response(sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        hurried: Any = _Hurried(sock, until_s)  # has what HTTPResponse wants of a socket
        return http.client.HTTPResponse(hurried, *args, **kwargs)

    return response


class _Hurried:
    """A socket's reading end: each read may take what is left until the deadline, so that a trickle is no way around it."""

    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self._sock = sock
        self._until_s = until_s

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._sock, self._until_s))


class _Raw(io.RawIOBase):
    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open when http.client has closed its own end
        self._until_s = until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # any writable buffer
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
