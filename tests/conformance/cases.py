"""Every scenario and every edge case, as data. Names begin with the scenario's number where it has one.

Offsets are what the steps make them: plain records take one each, and so does a transaction's marker.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from tests.conformance import steps
from tests.conformance.case import Case, Check, Place, end, first, middle
from tests.conformance.checks import (
    came_from_the_target,
    checkpoint_holds_its_floor,
    duplicates_came_about,
    finding,
    gaps_came_about,
    history_advances_then_rewinds,
    metadata_is_kept,
    no_checkpoint_on,
    standby_says_the_same,
    standby_was_left_alone,
    syncs_lie_in_the_target,
)
from tests.conformance.steps import compacted, foreign, same, transaction, trim, write
from tests.conformance.want import ABSENT, EXACT, bounded, unknown

CONNECTORS: Mapping[str, Mapping[str, str]] = {
    "main": {},
    "lag10": {"offset.lag.max": "10"},
    "lag0": {"offset.lag.max": "0"},
    "latest": {"source.consumer.auto.offset.reset": "latest"},
    "rewound": {},
    "moved": {},
    "filter": {
        "transforms": "drop",
        "transforms.drop.type": "org.apache.kafka.connect.transforms.Filter",
        "transforms.drop.predicate": "dropped",
        "predicates": "dropped",
        "predicates.dropped.type": "org.apache.kafka.connect.transforms.predicates.HasHeaderKey",
        "predicates.dropped.name": "drop",
    },
    "headers": {"header.converter": "org.apache.kafka.connect.storage.SimpleHeaderConverter"},
    "values": {"value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "false"},
    "paused": {},
    "anew": {"refresh.topics.interval.seconds": "2"},
    "grown": {"refresh.topics.interval.seconds": "2"},
    "uncommitted": {"source.consumer.isolation.level": "read_uncommitted"},
    "uncommitted-late": {"source.consumer.isolation.level": "read_uncommitted"},
    "renamed": {"replication.policy.class": "org.apache.kafka.connect.mirror.DefaultReplicationPolicy"},
}
"""Source connectors, each with what it has beside the sandbox's settings. Those that mrc must know of have a replication group each."""


def from_json(key: bytes | None, value: bytes | None) -> str:
    """The id of a copy that JsonConverter has made: its bytes in base64, as a JSON text."""
    return base64.b64decode(json.loads(value or b'""')).decode()


def disordered(number: int) -> int:
    """Timestamps that go back and forth, with ties."""
    return steps.AN_HOUR_AGO_MS + (number * 7 % 5) * 1_000


def some_missing(number: int) -> int:
    """Every tenth record has no timestamp."""
    return -1 if number % 10 == 5 else steps.AN_HOUR_AGO_MS + number


SCENARIOS = (
    Case(
        "S2-empty-partition",
        "one partition of four is empty",
        ((write(40, only=(0, 1, 2)),),),
        (Place("all-read", 40, EXACT), Place("none-read", 0, EXACT), Place("some-read", 17, EXACT), Place("empty", 0, EXACT)),
    ),
    Case(
        "S3-full-sync-lag10",
        "offset.lag.max=10",
        ((write(250),),),
        (Place("end", end, EXACT), Place("last", 249, EXACT), Place("middle", 125, EXACT), Place("start", 0, EXACT)),
        connector="lag10",
    ),
    Case(
        "S3-full-sync-lag0",
        "offset.lag.max=0",
        ((write(250),),),
        (Place("end", end, EXACT), Place("last", 249, EXACT), Place("middle", 125, EXACT)),
        connector="lag0",
    ),
    Case(
        "S4-nothing-mirrored",
        "committed at the end of an empty log; one gets its first record later",
        ((steps.commits("test-S4-nothing-mirrored", {0: 0, 1: 0}),), (write(1, only=(1,)),)),
        (Place("still-empty", 0, EXACT | unknown("not-yet-replicated")), Place("first-record", 0, EXACT)),
    ),
    Case(
        "S4-never-copied",
        "the mirror exists, and no flow copies",
        ((write(20, lost=True),),),
        (
            Place("start", 0, EXACT | unknown("not-yet-replicated")),
            Place("middle", 10, unknown("not-yet-replicated")),
            Place("end", end, unknown("not-yet-replicated")),
        ),
        connector="none",
        target={},
    ),
    Case(
        "S5-restart",
        "the connector is restarted on its way",
        ((write(60),), (steps.restarted("conf.lag10"), write(60))),
        (Place("before", 59, EXACT), Place("behind", 61, EXACT), Place("end", end, EXACT)),
        connector="lag10",
    ),
    Case(
        "S6-group-goes-back",
        "10,000 records; the group is at 90 %, then goes back to 10 %",
        ((write(10_000), steps.commits("test-S6-group-goes-back", {0: 9_000})), ()),
        (Place("back", 1_000, EXACT),),
        checks=(Check("advances-then-rewinds", history_advances_then_rewinds),),
    ),
    Case(
        "S7-syncs-on-target",
        "offset-syncs.topic.location=target",
        ((write(30),),),
        (Place("middle", 15, EXACT),),
        checks=(Check("nothing-in-the-source", syncs_lie_in_the_target),),
    ),
    Case(
        "S8-from-latest",
        "auto.offset.reset=latest: what was there before is not copied",
        ((write(50, lost=True),), (steps.until_copied, write(50))),
        (
            Place("never-copied", 10, unknown()),
            Place("behind", lambda log: log.end - 25, EXACT),
            Place("end", end, EXACT),
        ),
        connector="latest",
    ),
    Case(
        "S9-transactions",
        "transactions of five, all committed; their markers are not copied",
        (tuple(transaction(5) for _ in range(20)),),
        (Place("end", end, EXACT), Place("on-a-marker", 5, EXACT), Place("inside", 13, EXACT), Place("start", 0, EXACT)),
    ),
    Case(
        "S10-bursts",
        "copied in several polls: with exactly-once each leaves a marker in the target",
        ((write(40),), (write(40),), (write(40),)),
        (Place("first-burst", 20, EXACT), Place("seam", 40, EXACT), Place("second-burst", 60, EXACT), Place("end", end, EXACT)),
        checks=(Check("gaps", gaps_came_about, variants=("exactly-once",)),),
    ),
    Case(
        "S11-connector-rewind",
        "rewound to offset 0, so that all but the first are copied again; then its offsets are deleted, and all are",
        ((write(60),), (steps.rewound("conf.rewound", 0),), (steps.rewound("conf.rewound", None), write(20))),
        (
            Place("start", 0, EXACT | bounded("sent-again")),
            Place("middle", 30, EXACT | bounded("sent-again")),
            Place("old-end", 60, EXACT | bounded("sent-again")),
            Place("end", end, EXACT | bounded("sent-again")),
        ),
        connector="rewound",
        checks=(Check("copied-three-times", duplicates_came_about),),
    ),
    Case(
        "S12-S13-exact-hit-and-ahead",
        "copied from offset 100 on, behind 100 records of somebody else's: MirrorMaker's first sync is (100, 100)",
        ((write(100, lost=True), write(200), foreign(100)),),
        (
            Place(
                "before-the-first-sync",
                5,
                bounded() | unknown(),
            ),
            Place("on-the-sync", 100, EXACT),
            Place("ahead-of-it", 150, EXACT),
            Place("end", end, EXACT),
        ),
        connector="moved",
        target={},
    ),
    Case(
        "S14-target-made-anew",
        "the mirror is deleted and made anew; MirrorMaker goes on behind what is gone",
        ((write(60),), (steps.target_made_anew, write(30))),
        (
            Place("gone", 10, unknown()),
            Place("first-copied", 60, EXACT | unknown()),
            Place("behind", 75, EXACT | unknown()),
            Place("end", end, EXACT | unknown()),
        ),
        connector="anew",
        anew=True,
        target={},
        checks=(
            Check("alarm", finding("conf-S14-target-made-anew")),
            Check("alarm-after-a-restart", finding("conf-S14-target-made-anew", anew=True)),
        ),
    ),
    Case(
        "S15-upstream-rewind",
        "600 records are copied, then those from 300 on again",
        ((write(600),), (steps.rewound("conf.moved", 299),)),
        (
            Place("below", 299, EXACT | bounded("sent-again")),
            Place("at-the-seam", 300, EXACT | bounded("sent-again")),
            Place("above", 450, EXACT | bounded("sent-again")),
            Place("end", end, EXACT | bounded("sent-again")),
        ),
        connector="moved",
        checks=(Check("copied-twice", duplicates_came_about),),
    ),
    Case(
        "S20-one-partition-without-a-position",
        "a group that has committed on one partition of two",
        ((write(20),),),
        (Place("committed", 10, EXACT),),
        partitions=2,
        checks=(Check("nothing-is-invented", no_checkpoint_on(1)),),
    ),
    Case(
        "S21-target-ahead",
        "the standby's group stands ahead of the source's",
        ((write(40), steps.also(lambda stage, topic: stage.commit("test-S21-target-ahead", {(topic.name, 0): 40}, region="west"))),),
        (Place("behind", 20, EXACT),),
        target={},
        checks=(Check("standby-follows-the-source", standby_says_the_same),),
    ),
    Case(
        "S22-active-target",
        "a consumer is a member of the group in the target, and the group goes back in the source",
        (
            (write(40), steps.commits("test-S22-active-target", {0: 30})),
            (
                steps.also(lambda stage, topic: stage.commit("test-S22-active-target", {(topic.target, 0): 35}, region="west")),
                steps.also(lambda stage, topic: stage.member("test-S22-active-target", topic.target, region="west")),
            ),
        ),
        (Place("back", 5, EXACT),),
        target={},
        checks=(Check("never-overwritten", standby_was_left_alone(35)),),
    ),
    Case(
        "S23-renamed",
        "DefaultReplicationPolicy: the mirror's name has the source's before it",
        ((write(30),),),
        (Place("middle", 15, EXACT), Place("end", end, EXACT)),
        connector="renamed",
    ),
    Case(
        "S23-came-from-the-target",
        "the same for a group that reads what came from the target: B.t there is t here",
        ((write(30),), (steps.back_from_the_target,)),
        (Place("middle", 15, EXACT),),
        connector="renamed",
        checks=(
            Check(
                "captured",
                came_from_the_target("west.conf-S23-came-from-the-target", 10),
            ),
        ),
    ),
    Case(
        "S23.renamed-twice",
        "the same for a topic whose name looks like a mirror's",
        ((write(30),),),
        (Place("middle", 15, EXACT), Place("end", end, EXACT)),
        connector="renamed",
    ),
    Case(
        "S25-gaps",
        "a marker behind every record",
        (tuple(transaction(1) for _ in range(12)),),
        (Place("on-a-marker", 1, EXACT), Place("on-a-record", 2, EXACT), Place("another-marker", 13, EXACT), Place("end", end, EXACT)),
    ),
)

EDGES = (
    Case(
        "aborted",
        "S27: aborted transactions, MirrorMaker reads committed records",
        ((write(10), transaction(10, commit=False), write(10), transaction(5), transaction(5, commit=False)),),
        (
            Place("on-an-aborted-record", 12, EXACT),
            Place("on-the-abort-marker", 20, EXACT),
            Place("behind-it", 21, EXACT),
            Place("on-the-last-committed-marker", 36, EXACT),
            Place("end-of-an-aborted-tail", end, EXACT),
        ),
    ),
    Case(
        "aborted-and-copied",
        "S27: aborted transactions, MirrorMaker reads everything, as is Kafka's default",
        ((write(10), transaction(10, commit=False, lost=False), write(10), transaction(5), transaction(5, commit=False, lost=False)),),
        (
            Place("on-an-aborted-record", 12, EXACT),
            Place("on-the-abort-marker", 20, EXACT),
            Place("behind-it", 21, EXACT),
            Place("end-of-an-aborted-tail", end, EXACT),
        ),
        connector="uncommitted",
        isolation="read_uncommitted",
    ),
    Case(
        "aborted-and-copied-late",
        "the same, and the connector is made when the agent has been at work for a while",
        (
            (
                write(10),
                transaction(10, commit=False, lost=False),
                write(10),
                steps.commits("test-aborted-and-copied-late", {0: 12, 1: 15}),
            ),
            (steps.connected("conf.uncommitted-late"),),
        ),
        (
            Place("on-an-aborted-record", 12, EXACT),
            Place("on-another", 15, EXACT),
            Place("behind-it", 21, EXACT),
        ),
        connector="uncommitted-late",
        isolation="read_uncommitted",
        target={},
    ),
    Case(
        "open-transaction",
        "a transaction that does not end: nothing behind its beginning is copied",
        ((write(10), transaction(5, name="test-conformance-open", end=False, lost=True), write(5, lost=True)),),
        (
            Place("at-the-last-stable-offset", 10, EXACT),
            Place("behind-it", 17, unknown("not-yet-replicated")),
        ),
    ),
    Case(
        "compacted-before",
        "S28: compacted before MirrorMaker reads it",
        ((write(100, keys=steps.KEYS), compacted("east", 90)),),
        (
            Place("on-a-removed-record", 15, EXACT),
            Place("on-a-survivor", middle, EXACT),
            Place("first-survivor", first, EXACT),
            Place("end", end, EXACT),
        ),
        source=steps.QUICK_COMPACTION,
        target={},
    ),
    Case(
        "compacted-after",
        "S28: the source is compacted after it was copied",
        ((write(100, keys=steps.KEYS),), (compacted("east", 90),)),
        (Place("on-a-removed-record", 15, EXACT), Place("on-a-survivor", middle, EXACT), Place("end", end, EXACT)),
        target={},
    ),
    Case(
        "compacted-target",
        "S28: the mirror alone is compacted",
        ((write(100, keys=steps.KEYS),), (compacted("west", 90),)),
        (Place("copy-was-removed", 15, EXACT), Place("further-on", 60, EXACT), Place("end", end, EXACT)),
        target={},
    ),
    Case(
        "behind-the-copies",
        "committed at the end, and the end is not copied yet",
        (
            (write(50), steps.commits("test-behind-the-copies", {0: 50, 1: 30, 2: 30})),
            (),
            (steps.paused("conf.paused"), write(50, lost=True)),
        ),
        (
            Place("copied-so-far", 50, EXACT),
            Place("not-copied-yet", 80, unknown("not-yet-replicated")),
            Place("end", end, unknown("not-yet-replicated")),
        ),
        connector="paused",
        checks=(Check("the-earlier-position-stands", checkpoint_holds_its_floor({1: 30, 2: 30})),),
    ),
    Case(
        "beyond-the-end",
        "committed beyond the log's end",
        ((write(50),),),
        (Place("beyond", 1_000, unknown("not-yet-replicated")),),
    ),
    Case(
        "head-gone-before",
        "S34: the log's head was deleted before anybody copied it",
        ((write(60), trim(30)),),
        (Place("at-the-start", 30, EXACT), Place("below-the-start", 10, unknown("before-map")), Place("end", end, EXACT)),
        checks=(
            Check(
                "alarm",
                finding("conf-head-gone-before"),
            ),
        ),
    ),
    Case(
        "head-gone-after",
        "S34: the log's head is deleted after it was copied: the target still holds what a group has not read",
        ((write(60), steps.commits("test-head-gone-after", {0: 10, 1: 10, 2: 10})), (trim(30),)),
        (Place("below-the-start", 10, EXACT), Place("at-the-start", 30, EXACT), Place("end", end, EXACT)),
    ),
    Case(
        "filtered",
        "S29: a transformation drops records",
        ((write(10), write(5, headers=steps.DROP, lost=True), write(10), write(1, headers=steps.DROP, lost=True), write(4)),),
        (
            Place("on-the-first-dropped", 10, EXACT),
            Place("on-a-dropped", 12, EXACT),
            Place("behind-them", 15, EXACT),
            Place("on-a-single-one", 25, EXACT),
            Place("end", end, EXACT),
        ),
        connector="filter",
    ),
    Case(
        "filtered-tail",
        "S29: the last records are dropped",
        ((write(20), write(3, headers=steps.DROP, lost=True)),),
        (
            Place("before-the-tail", 20, EXACT),
            Place("in-the-tail", 21, EXACT | unknown("not-yet-replicated")),
            Place("end", end, EXACT | unknown("not-yet-replicated")),
        ),
        connector="filter",
    ),
    Case(
        "values-changed",
        "a converter changes every value",
        ((write(60),),),
        (
            Place("start", 0, EXACT | unknown("records-changed")),
            Place("middle", 30, unknown("records-changed")),
            Place("end", end, unknown("records-changed")),
        ),
        connector="values",
        identify_there=from_json,
        checks=(
            Check("alarm", finding("conf-values-changed", "RECORDS_CHANGED")),
            Check("alarm-after-a-restart", finding("conf-values-changed", "RECORDS_CHANGED", anew=True)),
        ),
    ),
    Case(
        "headers-changed",
        "the worker's default header converter: all headers become texts",
        ((write(60, headers=steps.HEADERS),),),
        (Place("middle", 30, unknown("records-changed")), Place("end", end, unknown("records-changed"))),
        connector="headers",
        checks=(
            Check("alarm", finding("conf-headers-changed", "HEADERS_CHANGED")),
            Check("alarm-after-a-restart", finding("conf-headers-changed", "HEADERS_CHANGED", anew=True)),
        ),
    ),
    Case(
        "headers-changed-of-some",
        "the same, and only every tenth record has headers",
        ((write(60, headers=steps.HEADERS, some_headers=10),),),
        (
            Place("on-a-changed-one", 25, EXACT | bounded() | unknown()),
            Place("before-it", 24, EXACT),
            Place("behind-it", 26, EXACT),
            Place("end", end, EXACT),
        ),
        connector="headers",
    ),
    Case(
        "tombstones",
        "null values, empty values, null headers",
        ((write(20), write(20, value=lambda id: None), write(10, value=lambda id: b""), write(10)),),
        (
            Place("on-a-tombstone", 30, EXACT),
            Place("first-tombstone", 20, EXACT),
            Place("on-an-empty-value", 45, EXACT),
            Place("end", end, EXACT),
        ),
    ),
    Case(
        "restart-duplicates",
        "S30: the worker is killed under traffic",
        ((write(200),), (steps.worker_killed(),), (write(20),)),
        (
            Place("before", 150, EXACT | bounded("sent-again")),
            Place("middle", middle, EXACT | bounded("sent-again")),
            Place("late", lambda log: log.end - 60, EXACT | bounded("sent-again")),
            Place("end", end, EXACT | bounded("sent-again")),
        ),
        checks=(Check("copied-again", duplicates_came_about, variants=("plain",)),),
    ),
    Case(
        "identical-run",
        "S31: twenty records in a row are the same",
        ((write(10), same(20), write(10)),),
        (
            Place("first-of-them", 10, EXACT | bounded("identical-records")),
            Place("among-them", 20, EXACT | bounded("identical-records")),
            Place("behind-them", 30, EXACT),
            Place("end", end, EXACT),
        ),
        alike=True,
    ),
    Case(
        "identical-all",
        "S31: all records are the same",
        ((same(30),),),
        (
            Place("start", 0, EXACT | bounded("identical-records")),
            Place("middle", 15, EXACT | bounded("identical-records")),
            Place("end", end, EXACT | bounded("identical-records")),
        ),
        alike=True,
    ),
    Case(
        "identical-apart",
        "S31: two records far apart are the same",
        ((write(5), same(1), write(30), same(1), write(5)),),
        (
            Place("on-the-first", 5, EXACT | bounded("identical-records")),
            Place("between", 20, EXACT),
            Place("on-the-second", 36, EXACT | bounded("identical-records")),
            Place("end", end, EXACT),
        ),
        alike=True,
    ),
    Case(
        "log-append-time-target",
        "S32: the target stamps records itself",
        ((write(40),),),
        (Place("middle", 20, EXACT), Place("end", end, EXACT)),
        target={"message.timestamp.type": "LogAppendTime"},
    ),
    Case(
        "log-append-time-source",
        "S32: the source stamps records itself",
        ((write(40),),),
        (Place("middle", 20, EXACT), Place("end", end, EXACT)),
        source={"message.timestamp.type": "LogAppendTime"},
    ),
    Case(
        "timestamps-disordered",
        "timestamps go back and forth, with ties",
        ((write(60, timestamps=disordered),),),
        (Place("early", 11, EXACT), Place("middle", 33, EXACT), Place("late", 58, EXACT), Place("end", end, EXACT)),
    ),
    Case(
        "timestamps-missing",
        "every tenth record has no timestamp: MirrorMaker's producer gives its copy one",
        ((write(60, timestamps=some_missing),),),
        (
            Place("on-one-without", 25, EXACT | bounded() | unknown()),
            Place("before-it", 24, EXACT),
            Place("behind-it", 26, EXACT),
            Place("end", end, EXACT),
        ),
    ),
    Case(
        "headers",
        "several headers, some of the same name, one null",
        ((write(30, headers=steps.HEADERS),),),
        (Place("middle", 15, EXACT), Place("end", end, EXACT)),
    ),
    Case(
        "partition-added",
        "the source gets a second partition",
        ((write(30),), (steps.grown(2), write(30))),
        (Place("old", 45, EXACT), Place("new", 15, EXACT)),
        connector="grown",
        partitions=1,
    ),
    Case(
        "partition-added-and-not-copied",
        "the source gets a second partition, and the target does not have it yet",
        ((write(30),), (), (steps.grown(2), write(10, only=(1,), lost=True))),
        (Place("old", 15, EXACT), Place("new", 5, ABSENT | unknown())),
        connector="paused",
        partitions=1,
    ),
    Case(
        "target-larger",
        "the target has more partitions than the source",
        ((write(30),),),
        (Place("one", 15, EXACT), Place("two", end, EXACT)),
        target={},
        partitions_there=4,
    ),
    Case(
        "source-made-anew-shorter",
        "S33: the source topic is made anew and is shorter than before: MirrorMaker begins at its start",
        ((write(60),), (steps.source_made_anew, write(20))),
        (Place("start", 0, EXACT | unknown()), Place("middle", 10, EXACT | unknown()), Place("end", end, EXACT | unknown())),
        connector="anew",
        anew=True,
        checks=(
            Check("alarm", finding("conf-source-made-anew-shorter")),
            Check("alarm-after-a-restart", finding("conf-source-made-anew-shorter", anew=True)),
        ),
    ),
    Case(
        "source-made-anew-longer",
        "S33: the source topic is made anew and is longer than before: MirrorMaker may go on in its middle",
        ((write(40),), (steps.source_made_anew, write(100, lost=True))),
        (
            Place("early", 10, EXACT | bounded() | unknown()),
            Place("late", 70, EXACT | bounded() | unknown()),
            Place("end", end, EXACT | bounded() | unknown()),
        ),
        connector="anew",
        anew=True,
        checks=(
            Check("alarm", finding("conf-source-made-anew-longer")),
            Check("alarm-after-a-restart", finding("conf-source-made-anew-longer", anew=True)),
        ),
    ),
    Case(
        "foreign-writer",
        "somebody else writes into the mirror",
        ((write(20),), (foreign(10), write(20))),
        (Place("before", 5, EXACT), Place("at-the-seam", 20, EXACT), Place("behind", 25, EXACT), Place("end", end, EXACT)),
        target={},
    ),
    Case(
        "foreign-lookalikes",
        "somebody else writes into the mirror what the source is about to write",
        ((write(20),), (steps.lookalikes(10), write(10))),
        (
            Place("before", 5, EXACT | bounded("sent-again")),
            Place("on-the-first", 20, EXACT | bounded()),
            Place("among-them", 25, EXACT | bounded()),
            Place("behind", 30, EXACT | bounded()),
            Place("end", end, EXACT | bounded()),
        ),
        target={},
        alike_foreign=True,
    ),
    Case(
        "metadata",
        "positions carry metadata, as Kafka Streams' do",
        ((write(20),),),
        (Place("middle", 10, EXACT),),
        target={},
        members="manual",
        metadata="AgAAAYvP5WgAAAAB/w== \u00e9\u4e2d",
        checks=(Check("byte-for-byte", metadata_is_kept),),
    ),
    Case(
        "manual-assignment",
        "a consumer that assigns itself partitions and commits",
        ((write(20),),),
        (Place("middle", 10, EXACT), Place("end", end, EXACT)),
        members="manual",
    ),
    Case(
        "classic-member",
        "a member of a group of the classic protocol commits",
        ((write(20),),),
        (Place("middle", 10, EXACT), Place("end", end, EXACT)),
        members="classic",
    ),
    Case(
        "static-member",
        "a static member commits",
        ((write(20),),),
        (Place("middle", 10, EXACT), Place("end", end, EXACT)),
        members="static",
    ),
    Case(
        "kip848-member",
        "a member of a group of the new protocol (KIP-848) commits",
        ((write(20),),),
        (Place("middle", 10, EXACT), Place("end", end, EXACT)),
        members="kip848",
        target={},
        checks=(Check("kept-in-the-standby", standby_says_the_same),),
    ),
)

CASES: tuple[Case, ...] = tuple(sorted((*SCENARIOS, *EDGES), key=lambda case: case.name != "restart-duplicates"))
"""The one that kills the worker first: all connectors must run then, and some other cases keep theirs from running."""
