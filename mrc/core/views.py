"""What an agent answers with: immutable values, shaped like the messages of ``proto/mrc/v1`` field by field.

A view holds only what a reader needs, with the age of everything that was read. Control maps views to and from
protobuf by field name, so a field here and its message field must have the same name (a test checks it).
"""

from __future__ import annotations

from mrc.core.model import ActiveRecord, Reading, Value

# ---------------------------------------------------------------- status


class AgentView(Value, frozen=True):
    """An agent that is alive, as ZooKeeper knows it."""

    id: str
    region: str
    address: str
    version: str
    leads: bool


class FenceView(Value, frozen=True):
    """A region's fence.

    Attributes:
        state: ``open`` (writable), ``fenced`` (proved), ``unverified`` (refusals set or attested, not proved) or ``unknown``.
        detail: the evidence, or why there is none.
        at_ms: when the evidence was taken.
    """

    state: str
    detail: str
    at_ms: int


class RegionView(Value, frozen=True):
    """One region as this agent sees it.

    Attributes:
        role: ``active`` or ``standby``.
        kafka: known = milliseconds the cluster took to answer.
        connect: the same for its Connect cluster.
        leader: id of the leading agent, empty where there is none.
        term: of that leader.
    """

    region: str
    role: str
    kafka: Reading[float]
    connect: Reading[float]
    fence: FenceView
    leader: str
    term: int
    agents: tuple[AgentView, ...]


class PartitionLagView(Value, frozen=True):
    """Lag of one partition; ``topic`` is the source's name."""

    topic: str
    partition: int
    lag_records: Reading[float]
    lag_seconds: Reading[float]
    source_end: Reading[float]
    replicated: Reading[float]


class FlowView(Value, frozen=True):
    """A flow as the agent leading in its target sees it.

    Attributes:
        wanted: ``running`` or ``stopped``, as the active-region record and the policy want it.
        connector_state: Connect's word, or ``UNKNOWN``.
        tasks: Connect's word per task.
        trace: first line of the connector's error.
        lag_records, lag_seconds: totals (sum, oldest).
        rpo: the sentence "at least N records, S s, as of t", or why it is unknown.
        checkpoint_age_s: age of the oldest checkpoint among partitions that have one to be kept current.
        checkpoints: how many partitions of groups have one; ``exact`` of them are exact.
    """

    source: str
    target: str
    connector: str
    wanted: str
    connector_state: str
    tasks: tuple[str, ...]
    trace: str
    lag_records: Reading[float]
    lag_seconds: Reading[float]
    rpo: str
    checkpoint_age_s: Reading[float]
    checkpoints: int
    exact: int
    partitions: tuple[PartitionLagView, ...]


class StatusView(Value, frozen=True):
    """A replication group as one agent sees it; ``answered_by`` and ``at_ms`` say which and when."""

    replication_group: str
    mode: str
    policy: str
    record: ActiveRecord | None
    record_age_s: float
    regions: tuple[RegionView, ...]
    flows: tuple[FlowView, ...]
    execution: str
    findings: tuple[FindingView, ...]
    answered_by: str
    at_ms: int


# ---------------------------------------------------------------- offsets


class TranslationView(Value, frozen=True):
    """An answer of the translator: ``type`` is ``exact``, ``bounded`` or ``unknown``.

    Attributes:
        offset: target offset (exact, bounded).
        repeats_max: records that may repeat at most (bounded).
        reason: stable word (bounded, unknown).
        detail: a sentence.
    """

    type: str
    offset: int = 0
    repeats_max: int = 0
    reason: str = ""
    detail: str = ""


class CheckpointView(Value, frozen=True):
    """A group's position on one partition. ``floor`` is the last safe target offset, -1 where there never was one."""

    group: str
    source: str
    target: str
    topic: str
    partition: int
    source_offset: int
    translation: TranslationView
    floor: int
    age_s: float


class VerifiedView(Value, frozen=True):
    """A checkpoint that was proved again by reading both sides: ``verdict`` is ``agrees``, ``disagrees`` or ``unproved``."""

    checkpoint: CheckpointView
    verdict: str
    detail: str


class GroupOffsetView(Value, frozen=True):
    """A group on one partition: where it stands in the source, and in the target.

    Attributes:
        topic, target_topic: its name in the source and in the target.
        source_offset: as captured last; unknown where nothing was.
        translation: of ``source_offset``.
        safe_offset: what may be committed in the target: the answer, or the last one that there was.
        evidence: of ``safe_offset``: ``exact``, ``bounded``, ``floor``; empty where there is none.
        metadata: what the consumer stored with its commit.
        age_s: how old ``source_offset`` is.
        committed: what the group has committed in the target now.
    """

    group: str
    source: str
    target: str
    topic: str
    target_topic: str
    partition: int
    source_offset: Reading[float]
    translation: TranslationView
    safe_offset: Reading[float]
    evidence: str
    metadata: str
    age_s: Reading[float]
    committed: Reading[float]


class HeaderView(Value, frozen=True):
    """A record's header, for reading; ``bytes`` is its value's size, -1 for null."""

    name: str
    value: str
    bytes: int


class RecordView(Value, frozen=True):
    """A record, for reading: key, value and headers are shortened; the sizes are whole, -1 for null."""

    offset: int
    timestamp_ms: int
    key: str
    key_bytes: int
    value: str
    value_bytes: int
    headers: tuple[HeaderView, ...]


class SideView(Value, frozen=True):
    """One side of a position.

    Attributes:
        offset: the position; unknown where there is none on this side.
        before: the record right before it, none where the log begins.
        next: the record that is read there next, none where the log ends.
        unread: why the records could not be read; empty where they were.
    """

    region: str
    topic: str
    partition: int
    offset: Reading[float]
    before: tuple[RecordView, ...]
    next: tuple[RecordView, ...]
    unread: str


class SyncView(Value, frozen=True):
    """An offset sync of MM2: one copied record."""

    source: int
    target: int


class SyncsView(Value, frozen=True):
    """The offset syncs around a position.

    Attributes:
        region, topic: where they lie.
        at_or_below, above: the last ones at or below the source position and the first ones above it, by their offsets.
        read: how many syncs of the partition were read.
        unread: why they could not be read; empty where they were.
    """

    region: str
    topic: str
    at_or_below: tuple[SyncView, ...]
    above: tuple[SyncView, ...]
    read: int
    unread: str


class Mm2AnswerView(Value, frozen=True):
    """What MM2 would have answered, by its syncs.

    Attributes:
        offset: the target offset; unknown where it would write none.
        sync: the sync that the answer rests on, none where there is none.
        kept: how many of the partition's syncs its task keeps.
        rereads: records that the group would read again beyond what mrc's answer repeats.
        skips: records that it would skip.
    """

    offset: Reading[float]
    sync: tuple[SyncView, ...]
    kept: int
    rereads: Reading[float]
    skips: Reading[float]


class ExplanationView(Value, frozen=True):
    """Why a group's position on a partition is answered as it is.

    Attributes:
        next_alike, before_alike: whether both sides have such a record and it is the same.
        age_s: how old the source position is.
    """

    group: str
    source: SideView
    target: SideView
    next_alike: bool
    before_alike: bool
    translation: TranslationView
    age_s: Reading[float]
    syncs: SyncsView
    mm2: Mm2AnswerView


class OffsetDiffView(Value, frozen=True):
    """mrc's answer beside what MM2 has checkpointed, and what the group has committed in the target.

    Attributes:
        answer: the safe target offset.
        evidence: of ``answer``.
        repeats_max: records that may repeat at most (bounded).
        mm2_source, mm2_target: MM2's last checkpoint: the source position it speaks of, and its translation.
        committed: in the target.
        verdict: ``agrees``; ``behind``: records would repeat; ``beyond``: records would be skipped, or nobody can say that
            they would not; ``not-committed``; ``unknown``: there is no answer to compare with.
        detail: a sentence.
    """

    group: str
    source: str
    target: str
    topic: str
    target_topic: str
    partition: int
    source_offset: Reading[float]
    answer: Reading[float]
    evidence: str
    repeats_max: int
    mm2_source: Reading[float]
    mm2_target: Reading[float]
    committed: Reading[float]
    verdict: str
    detail: str


class UnmovableView(Value, frozen=True):
    """Something that group offsets do not move.

    Attributes:
        kind: ``not-configured`` (a group that has positions on the unit's topics), ``other-protocol`` (Connect, share,
            streams, ...), ``no-positions`` (a configured group), ``no-position`` (one of its partitions), ``not-read``
            (it could not be looked at: the detail says why).
        topic, partition: empty and -1 where the whole group is meant.
    """

    kind: str
    group: str
    topic: str
    partition: int
    detail: str


class TranslatedView(Value, frozen=True):
    """One of many positions, and its translation into the other region."""

    region: str
    topic: str
    partition: int
    offset: int
    translation: TranslationView


class CommittedView(Value, frozen=True):
    """A position that was, or would be, committed.

    Attributes:
        topic: its name in the region where it is committed.
        before: what was committed until then.
        wanted: what is to be committed; unknown where it is left out, with the reason.
        after: what was read back; unknown where nothing was committed.
        note: what was done to the position; may be empty.
    """

    group: str
    topic: str
    partition: int
    before: Reading[float]
    wanted: Reading[float]
    after: Reading[float]
    note: str


class ForgottenView(Value, frozen=True):
    """A checkpoint that was deleted, or would be."""

    group: str
    topic: str
    partition: int
    source_offset: int
    forgotten: bool


# ---------------------------------------------------------------- moves


class FindingView(Value, frozen=True):
    """Something that forbids a move (``error``) or that its operator should know (``warning``, ``info``)."""

    code: str
    severity: str
    message: str
    where: str = ""


class StepView(Value, frozen=True):
    """A step of a plan or an execution.

    Attributes:
        state: ``planned``, ``running``, ``done``, ``verifying``, ``waiting``, ``failed``, ``undone``, ``skipped`` or
            ``left`` (where it was when another execution took the place).
        evidence: the last observed evidence, or what it will do in a plan.
        elapsed_ms: time spent in it so far.
    """

    name: str
    action: str
    state: str
    evidence: str
    elapsed_ms: int
    approval: bool
    point_of_no_return: bool


class PlanView(Value, frozen=True):
    """What a move would do now. ``expected_loss`` lists, per partition, "at least N records as of t" (failover only)."""

    replication_group: str
    kind: str
    source: str
    target: str
    epoch: int
    runbook: str
    runbook_hash: str
    steps: tuple[StepView, ...]
    findings: tuple[FindingView, ...]
    expected_loss: tuple[PartitionLossView, ...]
    positions: tuple[CheckpointView, ...]


class PartitionLossView(Value, frozen=True):
    """Expected loss on one partition: at least ``records``, or unknown."""

    topic: str
    partition: int
    records: Reading[float]


class ExecutionView(Value, frozen=True):
    """One run of a plan.

    Attributes:
        status: ``running``, ``waiting`` (approval, or paused and asking), ``undoing``, ``succeeded``, ``aborted``,
            ``superseded`` (a failover took its place); in a list
            also ``unreadable``, where its plan or journal is garbled.
        waits_for: what it waits for, with the code of the failure where there was one; empty while it runs; what is garbled, and where.
    """

    id: str
    replication_group: str
    kind: str
    source: str
    target: str
    status: str
    waits_for: str
    steps: tuple[StepView, ...]
    started_at_ms: int
    ended_at_ms: int
    actor: str
    reason: str
    runbook_hash: str
    abortable: bool


class EntryView(Value, frozen=True):
    """One journal entry: what happened, when, by whom, as JSON facts; of a garbled one its number, ``unreadable`` and where it is."""

    number: int
    at_ms: int
    agent: str
    term: int
    what: str
    step: str
    detail: str


# ---------------------------------------------------------------- divergence


class DivergenceRangeView(Value, frozen=True):
    """Half-open range of offsets in ``region`` that the other region will never get by replication.

    Attributes:
        begin: first divergent offset. Before the region's return it is what was last seen.
        end: the log's end when the range was closed; -1 while the region has not returned.
        records: how many visible records lie in it; -1 while unknown.
    """

    topic: str
    partition: int
    begin: int
    end: int
    records: int


class DivergenceView(Value, frozen=True):
    """What one failover left behind.

    ``state``: ``open`` (region not back), ``listed``, ``late`` or ``copied`` (exact), ``renewed`` (its log was made anew).
    """

    id: str
    region: str
    execution: str
    state: str
    at_ms: int
    ranges: tuple[DivergenceRangeView, ...]


class RecoveryProgressView(Value, frozen=True):
    """How far a recovery has come; ``doing`` is ``export`` or ``resolve``."""

    execution: str
    doing: str
    done: int
    total: int


class SupersededView(Value, frozen=True):
    """A divergent record that stays behind a newer one, and where that one stands in the open region."""

    offset: int
    by_partition: int
    by_offset: int


class RecoveryPartitionView(Value, frozen=True):
    """What has become of one partition's divergent records.

    Attributes:
        policy: by which its topic is, or will be, resolved.
        overtaken: of the emitted, those whose key was written again after the stated offset; 0 until it is accounted for.
        superseded_by: the first few of the superseded, each with the record that stands in its place.
    """

    topic: str
    partition: int
    policy: str
    divergent: int
    exported: int
    emitted: int
    superseded: int
    quarantined: int
    overtaken: int
    superseded_by: tuple[SupersededView, ...] = ()


class RecoveryView(Value, frozen=True):
    """What has become of what one failover left behind. ``accounted``: every record has one fate, counted from the logs."""

    execution: str
    region: str
    state: str
    accounted: bool
    partitions: tuple[RecoveryPartitionView, ...]


class VersionView(Value, frozen=True):
    """An agent's version."""

    agent: str
    region: str
    version: str
    leads: bool
