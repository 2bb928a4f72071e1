"""The archive: what has ended is copied from the journal in ZooKeeper to this region's own cluster, by its leading agent.

Level-triggered: what the topic lacks is written, whenever it is seen to lack it. A region that was dead catches up when it is back,
and an agent that is killed before it has noted a record writes the same one again. What cannot be written or read keeps nothing else back.
"""

from __future__ import annotations

from mrc.agent.estate import Estate
from mrc.agent.recording import AFTER_MS
from mrc.agent.store import Store
from mrc.core.errors import MrcError
from mrc.core.failover.archive import TOPIC, Archived, decode_archive, encode_archived
from mrc.core.failover.execution import ENDED
from mrc.core.views import FindingView

AGAIN_EVERY_S = 60.0
"""How often what could not be archived is tried again: nothing but a person's act, or another version, changes that."""

SETTLED_MS = AFTER_MS + 1_500
"""How long an execution has ended when it is kept: until then samples are still taken of it, by this agent's clock or another's."""


class Archive:
    """One replication group's executions in this agent's region."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._term: int | None = None
        self._kept: set[str] = set()
        self._garbled: tuple[str, ...] = ()
        self._later_s: dict[str, float] = {}
        self._ended_s: dict[str, float] = {}
        self._refused: dict[str, MrcError] = {}

    def findings(self) -> tuple[FindingView, ...]:
        """Return the topic's records that cannot be read, which are left alone, and the executions that cannot be archived, with why."""
        where = f"{self._estate.region} {TOPIC}"
        garbled = [
            FindingView("GARBLED_RECORD", "warning", f"the archived execution {id} cannot be read; it is left alone", where)
            for id in self._garbled
        ]
        refused = [
            FindingView(error.code, "warning", f"execution {id} is not archived: {error.message}", error.where or where)
            for id, error in sorted(self._refused.copy().items())
        ]
        return (*garbled, *refused)

    def tick(self) -> bool:
        """Write what has ended and is not there yet; return whether anything was written.

        Raises:
            MrcError: world errors; the next call goes on.
        """
        estate = self._estate
        cluster, store = estate.clusters[estate.region], estate.store
        if self._term != (term := estate.leadership.term):
            # Another agent may have led, and written, meanwhile.
            found, garbled = decode_archive(estate.unit.name, cluster.load(TOPIC))
            self._garbled, self._kept, self._later_s, self._refused = tuple(garbled), {*found, *garbled}, {}, {}
            self._term = term
        running, _ = store.current()
        now_s, written = estate.clock.monotonic_s(), False
        for id in store.executions():
            if id in self._kept or id == running or now_s < self._later_s.get(id, now_s):
                continue
            if (wait_s := self._keep(id)) is None:
                written = True
            else:
                self._later_s[id] = now_s + wait_s
        return written

    def _keep(self, id: str) -> float | None:
        """Archive an execution; return None when it was, else after how many seconds to try again."""
        estate = self._estate
        cluster, store = estate.clusters[estate.region], estate.store
        try:
            one = kept(store, id)
            run = one.run()
        except MrcError as error:
            if error.kind == "world" and error.code not in ("GARBLED_RECORD", "VERSION_MISMATCH"):
                raise
            self._refused[id] = error
            return AGAIN_EVERY_S
        if run.phase not in ENDED:
            return AGAIN_EVERY_S
        if (left_s := self._unsettled_s(id, run.ended_at_ms)) > 0:
            return left_s
        estate.leadership.check()
        cluster.ensure_topic(TOPIC, compacted=True)
        try:
            for record in encode_archived(one):
                estate.leadership.check()
                cluster.append(TOPIC, [record])
        except MrcError as error:
            if error.code != "RECORD_TOO_LARGE":
                raise
            self._refused[id] = error
            return AGAIN_EVERY_S
        self._refused.pop(id, None)
        self._kept.add(id)
        return None

    def _unsettled_s(self, id: str, ended_at_ms: int) -> float:
        """Return for how long samples may still be taken; the clock that says when it ended may be wrong, so not much longer than usual."""
        clock = self._estate.clock
        seen_s = self._ended_s.setdefault(id, clock.monotonic_s())
        elapsed_s = max((clock.now_ms() - ended_at_ms) / 1000, clock.monotonic_s() - seen_s)
        return SETTLED_MS / 1000 - elapsed_s


def kept(store: Store, execution: str) -> Archived:
    """Return an execution, whole. What was measured of it is left out where it is garbled, and keeps nobody from the journal.

    Raises:
        MrcError: ``UNKNOWN_EXECUTION``, ``GARBLED_RECORD``; world errors.
    """
    try:
        found = store.measured(execution)
    except MrcError as error:
        if error.code != "GARBLED_RECORD":
            raise
        found = None
    return Archived(store.plan(execution), store.entries(execution), found[0] if found else None)
