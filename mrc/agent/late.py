"""Late records: what a failover left behind under the default policy, and the flow copies by itself once the region is back.

Owns the ledger's entries once they are listed. Nothing waits for it: no position lies behind a record that is still to come, for
groups read it in ``<region>.<topic>`` whenever it comes.
"""

from __future__ import annotations

import msgspec

from mrc.agent.estate import Estate
from mrc.agent.store import LeaderCheck
from mrc.core.failover.ledger import Ledger
from mrc.core.model import Flow, Offset, TopicPartition


def note_copied(estate: Estate, lead: LeaderCheck) -> str:
    """Note which entries' records the flow into this region has copied, all of them; return what was noted.

    Connect stores a position when everything before it stands in the target. Raises world errors.
    """
    noted: list[str] = []
    for ledger, version in estate.store.ledgers():
        if (ledger.target, ledger.state) == (estate.region, "late") and not still_to_copy(estate, ledger):
            estate.store.put_ledger(lead, msgspec.structs.replace(ledger, state="copied"), version)
            noted.append(ledger.id)
    return f"late records of {', '.join(noted)} are copied" if noted else ""


def still_to_copy(estate: Estate, ledger: Ledger) -> list[TopicPartition]:
    """Return the partitions with late records behind the flow's stored position."""
    flow = Flow(ledger.region, ledger.target)
    ends = {TopicPartition(tail.topic, tail.partition): Offset(tail.end) for tail in ledger.tails if tail.records}
    last = estate.clusters[flow.source].last_records(list(ends), ends, estate.sights(flow).source)
    positions = estate.replicators[flow.target].positions(estate.connector(flow))
    return [tp for tp, seen in last.items() if seen is not None and positions.get(tp, Offset(0)) <= seen.offset]
