"""A way to an agent that goes silent, as a cut link or a frozen machine does: nothing comes through, and nothing is closed."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """Forwards connections to ``address`` until it is `silence`d. A context manager.

    Attributes:
        address: where it listens.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self._silent = threading.Event()
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._silent.set()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def silence(self) -> None:
        """Let nothing more through."""
        self._silent.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                coming, _ = self._listening.accept()
                self._open.append(coming)
                if self._silent.is_set():
                    continue
                going = socket.create_connection(self._to)
                self._open.append(going)
                for source, target in ((coming, going), (going, coming)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while data := source.recv(65536):
                if self._silent.is_set():
                    return
                target.sendall(data)
            if not self._silent.is_set():
                target.shutdown(socket.SHUT_WR)
