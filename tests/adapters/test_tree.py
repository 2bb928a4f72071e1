"""What `ZooKeeperTree` does by itself, against a server that is made up."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO, cast

import pytest

from mrc.adapters.zookeeper import ZooKeeperTree
from mrc.core.errors import MrcError

CREATE, NODE_EXISTS = 1, -110
LONG_S = 60.0
HURRIED_S = 15.0
"""Far above what was allowed, and well below the deadline and the 20 s after which the driver ends a silent connection."""


class FrozenServer:
    """Opens a session and says that every node to be made is there; what else is asked has no answer, and no connection ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._links.append(link)
            threading.Thread(target=self._speak, args=(link,), daemon=True).start()

    def _speak(self, link: socket.socket) -> None:
        # A client that goes in the middle is part of what is tried.
        with contextlib.suppress(ConnectionError), link, link.makefile("rwb") as opened:
            file = cast(BinaryIO, opened)
            self._read(file)
            session = struct.pack(">iiqi16s?", 0, 60_000, 1, 16, bytes(16), False)
            self._write(file, session)
            while frame := self._read(file):
                number, kind = struct.unpack(">ii", frame[:8])
                if kind == CREATE:
                    self._write(file, struct.pack(">iqi", number, 1, NODE_EXISTS))

    def _read(self, file: BinaryIO) -> bytes:
        head = file.read(4)
        return file.read(struct.unpack(">i", head)[0]) if len(head) == 4 else b""

    def _write(self, file: BinaryIO, frame: bytes) -> None:
        file.write(struct.pack(">i", len(frame)) + frame)
        file.flush()

    def close(self) -> None:
        self._listener.close()
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tree() -> Iterator[ZooKeeperTree]:
    server = FrozenServer()
    made = ZooKeeperTree(server.address, "/mrc/prod", 60_000, LONG_S)
    yield made
    server.close()
    made.close()


def refused_within(tree: ZooKeeperTree, seconds: float) -> MrcError:
    began_s = time.monotonic()
    with pytest.raises(MrcError) as raised, tree.within(seconds):
        tree.get("/groups")
    assert time.monotonic() - began_s < HURRIED_S
    return raised.value


def test_a_hurried_call_does_not_wait_until_its_deadline(tree: ZooKeeperTree) -> None:
    with tree.within(2.0):
        assert refused_within(tree, LONG_S).code == "ZOOKEEPER_UNREACHABLE"
    assert refused_within(tree, 0.2).code == "ZOOKEEPER_UNREACHABLE"


def test_nor_does_the_first_one_wait_for_a_connection() -> None:
    unreachable = ZooKeeperTree("127.0.0.1:1", "/mrc", 60_000, LONG_S)
    try:
        assert "no connection within 0.2 s" in refused_within(unreachable, 0.2).message
    finally:
        unreachable.close()


def test_only_the_thread_that_is_in_a_hurry_is_hurried(tree: ZooKeeperTree) -> None:
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(MrcError):
            tree.get("/groups")
        ended.set()

    with tree.within(0.0):
        other = threading.Thread(target=ask, daemon=True)
        other.start()
        refused_within(tree, 0.0)
        assert not ended.wait(0.3)


def test_a_full_path_has_the_root_in_it(tree: ZooKeeperTree) -> None:
    assert tree.full_path("/groups/orders/record") == "/mrc/prod/groups/orders/record"
