"""An ensemble to which agents connect: in memory, and a sandbox's."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Protocol

from kazoo.client import KazooClient

from mrc.adapters.zookeeper import ZooKeeperTree
from mrc.ports import Tree
from mrc.sandbox.world import Sandbox
from mrc.sim.clock import FakeClock
from mrc.sim.tree import FakeTree, TreeStore

SESSION_S = 4.0


class TreeStage(Protocol):
    dead: Tree

    def connect(self) -> Tree: ...

    def end(self, tree: Tree) -> None: ...

    def expire(self, tree: Tree) -> None: ...

    def pause(self, seconds: float) -> None: ...


class FakeEnsemble:
    def __init__(self) -> None:
        self._clock = FakeClock()
        self._store = TreeStore(self._clock, SESSION_S)
        silent = self._store.connect()
        silent.reachable = False
        self.dead: Tree = silent

    def connect(self) -> Tree:
        return self._store.connect()

    def end(self, tree: Tree) -> None:
        assert isinstance(tree, FakeTree)
        tree.close()

    def expire(self, tree: Tree) -> None:
        assert isinstance(tree, FakeTree)
        tree.expire()

    def pause(self, seconds: float) -> None:
        self._clock.sleep(seconds)


class RealEnsemble:
    """A sandbox's ensemble, below a root of the test's own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._connect = sandbox.layout.zookeeper()
        self._root = f"/contract/{uuid.uuid4().hex[:8]}"
        self._open: list[ZooKeeperTree] = []
        self._dead = ZooKeeperTree("127.0.0.1:1", self._root, int(SESSION_S * 1000), 0.5)
        self.dead: Tree = self._dead

    def connect(self) -> Tree:
        tree = ZooKeeperTree(self._connect, self._root, int(SESSION_S * 1000), 3.0)
        self._open.append(tree)
        tree.get("/")
        return tree

    def end(self, tree: Tree) -> None:
        assert isinstance(tree, ZooKeeperTree)
        self._open.remove(tree)
        tree.close()

    def expire(self, tree: Tree) -> None:
        """Take the session over with a second client and close it, which is how the ensemble ends a session at once."""
        assert isinstance(tree, ZooKeeperTree)
        before = tree._client.client_id
        thief = KazooClient(hosts=self._connect, client_id=before)
        thief.start(timeout=10)
        thief.stop()
        thief.close()
        until_s = time.monotonic() + 15
        while not (tree._client.connected and tree._client.client_id != before):
            assert time.monotonic() < until_s
            time.sleep(0.02)

    def pause(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def close(self) -> None:
        for tree in [*self._open, self._dead]:
            tree.close()
