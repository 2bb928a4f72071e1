"""The start gate: whether the record names a region open, told by a majority of ZooKeeper, before the region's brokers start.

Asks ZooKeeper alone, for there is no cluster yet and perhaps no agent. Invariant: "open" is answered only from a record that was
read with a majority within the time allowed; whatever else happens is an error, and means: do not start.
"""

from __future__ import annotations

from collections.abc import Iterable

from mrc.adapters.clock import SystemClock
from mrc.adapters.zookeeper.tree import ZooKeeperTree
from mrc.agent.store import Store
from mrc.config.settings import Settings
from mrc.core.errors import MrcError
from mrc.core.model import Epoch, Region, RegionState, Value
from mrc.ports import CALL_DEADLINE_S, Clock, Tree

TRY_EVERY_S = 0.5


class Gate(Value, frozen=True):
    """What the record says of a region that is about to start.

    Attributes:
        open: the record names it, and it is open: whoever writes there is right.
        active, state, epoch: the record.
        refusals: noted in ZooKeeper as made there by mrc. The cluster keeps them over a restart, but noted is not proved.
    """

    replication_group: str
    region: Region
    open: bool
    active: Region
    state: RegionState
    epoch: Epoch
    refusals: int


def ask(tree: Tree, clock: Clock, replication_group: str, region: Region, deadline_s: float) -> Gate:
    """Read the record and the region's fence record, again and again until a majority has answered.

    Args:
        deadline_s: by ``clock``; at least one try is made.

    Raises:
        MrcError: ``ZOOKEEPER_UNREACHABLE`` where none has by then; ``NO_ACTIVE_RECORD``, ``GARBLED_RECORD`` at once.
    """
    store = Store(tree, replication_group)
    while True:
        try:
            found, (noted, _) = store.record(), store.fence(region)
        except MrcError as error:
            if not error.retryable or clock.monotonic_s() + TRY_EVERY_S > deadline_s:
                raise
            clock.sleep(TRY_EVERY_S)
            continue
        if found is None:
            raise MrcError("NO_ACTIVE_RECORD", "nobody has written the first active-region record", where=tree.full_path(store.record_path))
        record, _ = found
        is_open = record.region == region and record.state == "open"
        return Gate(replication_group, region, is_open, record.region, record.state, record.epoch, len(noted.bindings))


def ask_all(settings: Settings, replication_groups: Iterable[str], region: Region, timeout_s: float) -> tuple[Gate, ...]:
    """Ask for each replication group, within ``timeout_s`` in all. Raises as `ask`."""
    clock, zookeeper = SystemClock(), settings.zookeeper
    deadline_s = clock.monotonic_s() + timeout_s
    tree = ZooKeeperTree(zookeeper.connect, zookeeper.root, zookeeper.session_timeout_ms, CALL_DEADLINE_S)
    try:
        with tree.within(timeout_s):
            return tuple(ask(tree, clock, name, region, deadline_s) for name in replication_groups)
    finally:
        tree.close()
