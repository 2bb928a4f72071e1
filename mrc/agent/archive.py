"""The archive: what has ended is copied from the journal in ZooKeeper to this region's own cluster, by its leading agent.

Level-triggered: what the topic lacks is written, whenever it is seen to lack it. A region that was dead catches up when it is back,
and an agent that is killed before it has noted a record writes the same one again.
"""

from __future__ import annotations

from mrc.agent.estate import Estate
from mrc.core.errors import MrcError
from mrc.core.failover.archive import TOPIC, Archived, decode_archive, encode_archived
from mrc.core.failover.execution import ENDED
from mrc.core.views import FindingView


class Archive:
    """One replication group's executions in this agent's region."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._kept: set[str] | None = None
        self._garbled: tuple[str, ...] = ()
        self._unreadable: set[str] = set()

    def forget(self) -> None:
        """Look at the topic again before anything else is written: another agent has led meanwhile."""
        self._kept = None

    def findings(self) -> tuple[FindingView, ...]:
        """Return the records of the topic that cannot be read. They are left alone."""
        where = f"{self._estate.region} {TOPIC}"
        return tuple(
            FindingView("GARBLED_RECORD", "warning", f"the archived execution {id} cannot be read; it is left alone", where)
            for id in self._garbled
        )

    def tick(self) -> bool:
        """Write what has ended and is not there yet; return whether anything was written.

        Raises:
            MrcError: world errors; the next call goes on.
        """
        estate = self._estate
        cluster, store = estate.clusters[estate.region], estate.store
        if self._kept is None:
            found, garbled = decode_archive(estate.unit.name, cluster.load(TOPIC))
            self._garbled = tuple(garbled)
            self._kept = {*found, *garbled}
        written = False
        running, _ = store.current()
        for id in store.executions():
            if id in self._kept or id in self._unreadable or id == running:
                continue
            try:
                one = Archived(store.plan(id), store.entries(id))
                ended = one.run().phase in ENDED
            except MrcError as error:
                if error.kind == "world" and error.code not in ("GARBLED_RECORD", "VERSION_MISMATCH"):
                    raise
                self._unreadable.add(id)  # told of where executions are listed, with its place
                continue
            if ended:
                estate.leadership.check()
                cluster.ensure_topic(TOPIC, compacted=True)
                cluster.append(TOPIC, [encode_archived(one)])
                self._kept.add(id)
                written = True
        return written
