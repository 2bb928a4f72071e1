"""Live sync: in the standby every group's translated position is kept committed, so that Kafka does not forget it.

Runs in the agent that leads in a flow's target, while the flow's source is open. A position is written when it differs from
what was written last, forwards or backwards (MM2's own sync never goes backwards), and again well within the cluster's
``offsets.retention.minutes``. A group with members is never touched: its state is read right before, and the broker refuses
each partition of it besides. Nothing is written while MM2 writes the same groups' positions itself.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from mrc.agent.capture import Capture
from mrc.agent.estate import Estate
from mrc.core.errors import MrcError
from mrc.core.inventory import Position
from mrc.core.model import GroupId, Offset, TopicPartition
from mrc.core.views import FindingView

SYNC_EVERY_S = 5.0
"""How often a group's position is written at most."""

LOOK_EVERY_S = 30.0
"""How often MM2's checkpoint connector is asked whether it writes positions, and groups with members are looked at again."""

RETENTION_DEFAULT_S = 7 * 24 * 3600.0
"""Kafka's default of ``offsets.retention.minutes``."""


class LiveSync:
    """The standby positions of one replication group. One thread calls `tick`."""

    def __init__(self, estate: Estate, capture: Capture) -> None:
        self._estate = estate
        self._capture = capture
        self._flow = estate.inbound(estate.region)
        self._written: dict[GroupId, tuple[dict[TopicPartition, Position], float]] = {}
        self._not_before_s: dict[GroupId, float] = {}
        self._retention_s = RETENTION_DEFAULT_S
        self._looked_at_s = float("-inf")
        self._refused = ""

    def findings(self) -> tuple[FindingView, ...]:
        """Return why positions are not kept in the standby, where they are not."""
        return (FindingView("MM2_SYNCS_OFFSETS", "warning", self._refused, str(self._flow)),) if self._refused else ()

    def forget(self) -> None:
        """Forget what was written: another agent may write from now on."""
        self._written.clear()
        self._not_before_s.clear()
        self._looked_at_s = float("-inf")

    def tick(self) -> bool:
        """Write what has changed or grows old; return whether anything was written.

        Raises:
            MrcError: the target, its Connect or ZooKeeper does not answer; ``LEASE_LOST``.
        """
        if not self._groups():
            return False
        now_s = self._estate.clock.monotonic_s()
        if now_s - self._looked_at_s >= LOOK_EVERY_S:
            self._look()
            self._looked_at_s = now_s
        if self._refused:
            return False
        wanted = self._capture.standby_positions()
        written = [self._sync(group, wanted[group], now_s) for group in self._groups() if wanted.get(group)]
        return any(written)

    def _groups(self) -> list[GroupId]:
        unit = self._estate.unit
        return [group for group in unit.groups if any(fnmatchcase(group, pattern) for pattern in unit.live_sync)]

    def _look(self) -> None:
        estate, region = self._estate, self._estate.region
        said = estate.clusters[region].broker_settings().get("offsets.retention.minutes")
        self._retention_s = float(said) * 60 if said else RETENTION_DEFAULT_S
        connector = f"{estate.connector(self._flow)}.checkpoint"
        on = estate.replicators[region].settings(connector).get("sync.group.offsets.enabled") == "true"
        self._refused = (
            f"sync.group.offsets.enabled of {connector} is on: two writers of one position; mrc writes none until it is off" if on else ""
        )

    def _sync(self, group: GroupId, wanted: dict[TopicPartition, Position], now_s: float) -> bool:
        written, at_s = self._written.get(group, ({}, float("-inf")))
        if now_s < self._not_before_s.get(group, 0.0) or (written == wanted and now_s - at_s < self._retention_s / 4):
            return False
        self._not_before_s[group] = now_s + SYNC_EVERY_S
        cluster = self._estate.clusters[self._estate.region]
        if cluster.group(group).members:
            self._not_before_s[group] = now_s + LOOK_EVERY_S
            return False
        with self._estate.committing:
            record, _ = self._estate.require_record()
            if record.state != "open" or record.region != self._flow.source:
                return False
            self._estate.leadership.check()
            try:
                cluster.commit_positions(group, self._within(wanted))
            except MrcError as error:
                if error.code != "GROUP_HAS_MEMBERS":
                    raise
                return False
        self._written[group] = (wanted, now_s)
        return True

    def _within(self, wanted: dict[TopicPartition, Position]) -> dict[TopicPartition, Position]:
        """Return positions that the target's log still has."""
        cluster = self._estate.clusters[self._estate.region]
        starts, ends = cluster.starts(list(wanted)), cluster.ends(list(wanted), "read_uncommitted")
        return {tp: Position(Offset(max(starts[tp], min(p.offset, ends[tp]))), p.metadata) for tp, p in wanted.items()}
