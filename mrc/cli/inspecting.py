"""``mrc offsets show``, ``explain``, ``diff``, ``unmovable``: looking at positions. Nothing here changes anything."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid
from mrc.cli.standby import cell, cells_of, standby

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.views import (
        ExplanationView,
        GroupOffsetView,
        Mm2AnswerView,
        OffsetDiffView,
        RecordView,
        SideView,
        SyncsView,
        UnmovableView,
    )

LOOK_S = 60.0
"""Deadline of a call that looks at clusters anew."""


@click.command()
@click.argument("group")
@click.pass_context
def show(ctx: click.Context, group: str) -> None:
    """Show where GROUP stands on every partition: in the source, in the target, and what it has committed there now.

    \b
    Examples:
      mrc offsets show billing
      mrc offsets show billing -o json | jq '.[] | {topic, partition, safe_offset}'
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:
        found = client.ask_leader(region, "ShowOffsets", deadline_s=LOOK_S, replication_group=name, group=group)
    emit(ctx, found, table=_offsets_table)


def _offsets_table(found: tuple[GroupOffsetView, ...]) -> RenderableType:
    rows = [
        (
            f"{o.topic}-{o.partition}",
            f"{o.source}->{o.target}",
            cell(o.source_offset),
            *cells_of(o.translation),
            cell(o.safe_offset) if o.evidence == "floor" else "",
            cell(o.age_s, ".1f"),
            cell(o.committed),
        )
        for o in found
    ]
    return grid(
        ("partition", "flow", ">source offset", ">target offset", "evidence", ">safe until then", ">age s", ">committed there"), rows
    )


# ---------------------------------------------------------------- explain


@click.command()
@click.argument("group")
@click.option("--topic", default="", help="On this topic only, by its name in the source.")
@click.option("--partition", type=click.IntRange(min=0), help="On this partition only.")
@click.pass_context
def explain(ctx: click.Context, group: str, topic: str, partition: int | None) -> None:
    """Show why GROUP's positions are answered as they are: the records on both sides, and what MirrorMaker knows.

    The records that are read next and those right before are read anew from both logs. Of MirrorMaker the offset syncs around
    the position are shown, what its checkpoint task would answer by them, and how many records that would read again.

    \b
    Examples:
      mrc offsets explain billing --topic orders --partition 0
      mrc offsets explain billing -o json | jq '.[] | {topic: .source.topic, reread: .mm2.rereads}'
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    one_only = {} if partition is None else {"partition": partition}
    found: list[ExplanationView] = []
    with Client(call.settings()) as client:
        for one in client.stream_leader(region, "ExplainOffsets", replication_group=name, group=group, topic=topic, **one_only):
            found.append(one)
            _progress(f"{len(found)} partitions read")
    _progress("")
    emit(ctx, found, table=_explanations)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def _explanations(found: list[ExplanationView]) -> RenderableType:
    from rich.console import Group

    return Group(*(_explanation(one) for one in found))


def _explanation(one: ExplanationView) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    here, there = one.source, one.target
    offset, evidence = cells_of(one.translation)
    age = f", {cell(one.age_s, '.1f')} s old" if cell(one.age_s, ".1f") != "-" else ""
    head = f"{one.group} on {here.topic}-{here.partition}: {here.region} {cell(here.offset)} -> {there.region} {offset}{age}"
    why = f"evidence: {evidence}" + (f"; {one.translation.detail}" if one.translation.detail else "")
    rows = [
        ("position", cell(here.offset), cell(there.offset), ""),
        *_pair("before", here.before, there.before, alike=one.before_alike),
        *_pair("next", here.next, there.next, alike=one.next_alike),
    ]
    unread = [f"{side.region} was not read: {side.unread}" for side in (here, there) if side.unread]
    lines = [why, *unread, _syncs_line(one.syncs), _mm2_line(one.mm2)]
    return Group(
        Text(head, style="bold"),
        grid(("", _side(here), _side(there), ""), rows),
        *(Text(f"  {line}") for line in lines),
        Text(),
    )


def _side(side: SideView) -> str:
    return f"{side.region} {side.topic}-{side.partition}"


def _pair(which: str, here: tuple[RecordView, ...], there: tuple[RecordView, ...], *, alike: bool) -> list[tuple[str, str, str, str]]:
    """Return the rows of two records side by side."""
    if not here and not there:
        return [(f"{which} record", "-", "-", "")]
    verdict = "the same record" if alike else "not the same record"
    cells = [_record(one[0]) if one else {} for one in (here, there)]
    names = dict.fromkeys([*cells[0], *cells[1]])
    return [
        (
            f"{which} {name}" if name == "offset" else f"  {name}",
            cells[0].get(name, "-"),
            cells[1].get(name, "-"),
            verdict * (name == "offset"),
        )
        for name in names
    ]


def _record(record: RecordView) -> dict[str, str]:
    moment = dt.datetime.fromtimestamp(record.timestamp_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
    found = {"offset": str(record.offset), "timestamp": moment, "key": _sized(record.key, record.key_bytes)}
    found["value"] = _sized(record.value, record.value_bytes)
    if record.headers:
        found["headers"] = ", ".join(f"{header.name}={_sized(header.value, header.bytes)}" for header in record.headers)
    return found


def _sized(text: str, size: int) -> str:
    if size < 0:
        return "null"
    return f"{text} ({size:,} bytes)" if text.endswith("…") else text


def _syncs_line(syncs: SyncsView) -> str:
    place = f"{syncs.topic} in {syncs.region}"
    if syncs.unread:
        return f"offset syncs were not read ({place}): {syncs.unread}"
    below = ", ".join(f"{sync.source}->{sync.target}" for sync in syncs.at_or_below) or "none"
    above = ", ".join(f"{sync.source}->{sync.target}" for sync in syncs.above) or "none"
    return f"offset syncs ({syncs.read} in {place}): at or below {below}; above {above}"


def _mm2_line(mm2: Mm2AnswerView) -> str:
    from mrc.core.model import Known

    if not isinstance(mm2.offset, Known):
        return f"MirrorMaker would answer nothing: {mm2.offset.detail}"
    basis = "".join(f" by its sync {sync.source}->{sync.target}, one of the {mm2.kept} that it keeps" for sync in mm2.sync)
    skips = f"; {cell(mm2.skips)} would be skipped" if not isinstance(mm2.skips, Known) or mm2.skips.value else ""
    return f"MirrorMaker would answer {mm2.offset.value:.0f}{basis}: {cell(mm2.rereads)} records would be read again{skips}"


# ---------------------------------------------------------------- diff, unmovable


@click.command()
@click.option("--group", default="", help="Of this group only.")
@click.pass_context
def diff(ctx: click.Context, group: str) -> int:
    """Compare mrc's answers with MirrorMaker's checkpoints and with what is committed in the target.

    Exit code 3 where a group has committed a position beyond mrc's answer: it would skip records.

    \b
    Examples:
      mrc offsets diff
      mrc offsets diff --group billing -o json
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:
        found = client.ask_leader(region, "DiffOffsets", deadline_s=LOOK_S, replication_group=name, group=group)
    emit(ctx, found, table=_diff_table)
    return Exit.FINDINGS if any(one.verdict == "beyond" for one in found) else Exit.OK


def _diff_table(found: tuple[OffsetDiffView, ...]) -> RenderableType:
    rows = [
        (
            d.group,
            f"{d.topic}-{d.partition}",
            cell(d.source_offset),
            cell(d.answer),
            d.evidence,
            _mm2_checkpoint(d),
            cell(d.committed),
            d.verdict,
            d.detail,
        )
        for d in found
    ]
    return grid(("group", "partition", ">source", ">mrc", "evidence", ">MirrorMaker", ">committed", "committed", "what"), rows)


def _mm2_checkpoint(d: OffsetDiffView) -> str:
    """Return MM2's answer, and the position that it is for where that is another one."""
    at, source = cell(d.mm2_target), cell(d.mm2_source)
    return at if at.startswith(("-", "?")) or source == cell(d.source_offset) else f"{at} (for {source})"


@click.command()
@click.pass_context
def unmovable(ctx: click.Context) -> None:
    """List what cannot be moved by group offsets.

    Groups that have positions on the topics and are not in the configuration; groups of other protocols than consumers'
    (Connect, share groups, Kafka Streams' newer one), where the cluster tells; configured groups without any position, and
    partitions on which one has none. A list, no judgement: the exit code is 0.

    \b
    Examples:
      mrc offsets unmovable
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:
        found = client.ask_leader(region, "ListUnmovable", deadline_s=LOOK_S, replication_group=name)
    emit(ctx, found, table=_unmovable_table)


def _unmovable_table(found: tuple[UnmovableView, ...]) -> RenderableType:
    rows = [(u.kind, u.group or None, u.topic or None, str(u.partition) if u.partition >= 0 else None, u.detail) for u in found]
    return grid(("kind", "group", "topic", ">partition", "what"), rows)
