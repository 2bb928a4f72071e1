"""``mrc offsets export``, ``import``, ``apply``, ``forget``: positions into a file and out of it, and those that a person changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import console, emit, grid
from mrc.cli.standby import cell, confirm, standby

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.translation.positions import FilePosition, PositionsFile
    from mrc.core.views import CommittedView, ForgottenView, GroupOffsetView

COMMIT_S = 30.0
_BATCH = 1000
_BATCH_BYTES = 48 * 1024
"""What one request holds: less than agents take."""

Commit = Callable[[str, "Sequence[FilePosition]", Literal["show", "commit"]], "tuple[CommittedView, ...]"]
"""(group, positions, what to do) -> before and after."""

_YES = click.option("--yes", is_flag=True, help="Don't ask.")
_DRY = click.option("--dry-run", is_flag=True, help="Only show what would be changed.")


# ---------------------------------------------------------------- export


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--group", default="", help="Of this group only.")
@click.option("--direct", is_flag=True, help="Read the topic of checkpoints from the target itself: no agents, no ZooKeeper.")
@click.option("--region", help="With --direct: the target, whose cluster keeps the checkpoints.")
@click.option("--csv", is_flag=True, help="Write what kafka-consumer-groups.sh --reset-offsets --from-file reads.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.pass_context
def export(ctx: click.Context, file: Path, group: str, direct: bool, region: str | None, csv: bool, force: bool) -> int:
    """Write the groups' safe target positions to FILE, as JSON with source, target, epoch and time.

    --direct is for the day on which no agent runs: it needs the target's Kafka cluster and the configuration only, and reads
    what mrc captured last. Exit code 3 where a position was left out because no target offset is safe.

    \b
    Examples:
      mrc offsets export positions.json
      mrc offsets export --direct --region west --group billing positions.json
      mrc offsets export --csv positions.csv
    """
    if direct != (region is not None):
        raise click.UsageError("--direct and --region belong together", ctx)
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists; --force overwrites it", ctx)
    call = invocation(ctx)
    found = _read_direct(call, region, group) if region is not None else _read_by_agents(call, group)
    _write(file, _csv(found) if csv else _json(found))
    for line in found.left_out:
        click.echo(f"left out: {line}", err=True)
    summary = {
        "file": str(file),
        "source": found.source,
        "target": found.target,
        "epoch": found.epoch,
        "positions": {name: len(rows) for name, rows in found.by_group().items()},
        "left_out": len(found.left_out),
    }
    emit(ctx, summary, table=lambda _: grid(("group", ">positions"), [(name, len(rows)) for name, rows in found.by_group().items()]))
    return Exit.FINDINGS if found.left_out else Exit.OK


def _read_direct(call: Invocation, region: str, group: str) -> PositionsFile:
    from mrc.wiring import direct

    settings = call.settings()
    return direct.read(settings, call.group(settings), region, group)


def _read_by_agents(call: Invocation, group: str) -> PositionsFile:
    import time

    from mrc.control.client import Client
    from mrc.core.model import Known, Region
    from mrc.core.translation.positions import PositionsFile

    where = standby(call)
    with Client(call.settings()) as client:
        rows: tuple[GroupOffsetView, ...] = client.ask_leader(
            where.region, "ShowOffsets", deadline_s=COMMIT_S, replication_group=where.replication_group, group=group
        )
    known = [row for row in rows if isinstance(row.safe_offset, Known)]
    left_out = tuple(
        f"{row.group} {row.topic}-{row.partition}: {row.safe_offset.reason}" for row in rows if not isinstance(row.safe_offset, Known)
    )
    source = rows[0].source if rows else ""
    at_ms = time.time_ns() // 1_000_000
    return PositionsFile(
        "mrc-positions",
        1,
        where.replication_group,
        Region(source),
        Region(where.region),
        where.epoch,
        at_ms,
        "agents",
        tuple(map(_position, known)),
        left_out,
    )


def _position(row: GroupOffsetView) -> FilePosition:
    from mrc.core.model import GroupId, Known
    from mrc.core.translation.positions import FilePosition

    def number(reading: object) -> float:
        return reading.value if isinstance(reading, Known) else 0.0

    return FilePosition(
        group=GroupId(row.group),
        topic=row.target_topic,
        partition=row.partition,
        offset=int(number(row.safe_offset)),
        metadata=row.metadata,
        source_topic=row.topic,
        source_offset=int(number(row.source_offset)),
        evidence=row.evidence,  # type: ignore[arg-type] # the agent's word; it is read back before it is written
        repeats_max=row.translation.repeats_max,
        age_s=number(row.age_s),
    )


def _json(found: PositionsFile) -> bytes:
    """Return the file's bytes, once they can be read back."""
    from mrc.core.translation.positions import decode_positions, encode_positions

    data = encode_positions(found)
    decode_positions(data, "the positions that were to be written")
    return data


def _csv(found: PositionsFile) -> bytes:
    """Return lines of group, topic, partition, offset."""
    return "".join(f"{p.group},{p.topic},{p.partition},{p.offset}\n" for p in found.positions).encode()


def _write(file: Path, data: bytes) -> None:
    """Write the whole file or none of it. Raises ``BAD_REQUEST`` where it cannot be written."""
    from mrc.cli.files import write_whole
    from mrc.core.errors import MrcError

    try:
        write_whole(file, data)
    except OSError as error:
        raise MrcError("BAD_REQUEST", f"the file cannot be written: {error}", where=str(file)) from None


# ---------------------------------------------------------------- import


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--group", default="", help="Of this group only.")
@click.option("--direct", is_flag=True, help="Commit in the target's cluster itself: no agents, no ZooKeeper. Nobody checks which is open.")
@click.option("--region", help="The target; the file's, and nothing else.")
@_DRY
@_YES
@click.pass_context
def import_(ctx: click.Context, file: Path, group: str, direct: bool, region: str | None, dry_run: bool, yes: bool) -> int:
    """Commit the positions of FILE in its target, for groups without members.

    Shows before and after and asks for the region's name. A group's state is read right before, each partition's error is
    checked, and what was committed is read back. Agents refuse a file of another epoch, the open region, and while a move runs;
    with --direct a person answers for these.

    \b
    Examples:
      mrc offsets import --dry-run positions.json
      mrc offsets import --direct --region west positions.json
    """
    call = invocation(ctx)
    found = _checked(call, file, region, group)
    groups = {name: rows for name, rows in found.by_group().items() if group in ("", name)}
    with _committer(call, found, direct=direct) as commit:
        before = [row for name, rows in groups.items() for row in commit(name, rows, "show")]
        if dry_run:
            emit(ctx, before, table=_committed_table)
            return Exit.OK
        _show_and_ask(ctx, before, found.target, yes=yes)
        if direct:
            click.echo(f"nobody was asked whether {found.target} is open or a move runs", err=True)
        done: list[CommittedView] = []
        try:
            for name, rows in groups.items():
                done += commit(name, rows, "commit")
        finally:
            if len({row.group for row in done}) < len(groups):
                click.echo(f"committed so far: {', '.join(dict.fromkeys(row.group for row in done)) or 'nothing'}", err=True)
    emit(ctx, done, table=_committed_table)
    return Exit.OK


def _checked(call: Invocation, file: Path, region: str | None, group: str) -> PositionsFile:
    """Return the file's positions, once it is one of this replication group.

    Raises:
        MrcError: ``POSITIONS_INVALID``, ``UNKNOWN_REGION``, ``UNKNOWN_GROUP``.
    """
    from mrc.core.errors import MrcError
    from mrc.core.translation.positions import BYTES_MAX, decode_positions

    name, where = call.group(call.settings()).name, str(file)
    with file.open("rb") as stream:
        found = decode_positions(stream.read(BYTES_MAX + 1), where)
    if found.replication_group != name:
        raise MrcError("POSITIONS_INVALID", f"it is of replication group {found.replication_group!r}, not of {name!r}", where=where)
    if region not in (None, found.target):
        raise MrcError("POSITIONS_INVALID", f"its offsets are those of {found.target}, not of {region}", where=where)
    if group and group not in found.by_group():
        raise MrcError("UNKNOWN_GROUP", f"no group {group!r} in it; there are: {', '.join(found.by_group()) or 'none'}", where=where)
    if not found.positions:
        raise MrcError("POSITIONS_INVALID", "it has no positions", where=where)
    return found


@contextmanager
def _committer(call: Invocation, file: PositionsFile, *, direct: bool) -> Iterator[Commit]:
    """Give what commits a group's positions: the agent that leads in the target, or this process by itself."""
    settings = call.settings()
    group = call.group(settings)
    if direct:
        from mrc.core.inventory import Position
        from mrc.core.model import GroupId, Offset
        from mrc.wiring import direct as hand
        from mrc.wiring.estates import unit

        with hand.opened(settings, group, file.target) as there:

            def by_hand(name: str, rows: Sequence[FilePosition], do: Literal["show", "commit"]) -> tuple[CommittedView, ...]:
                wanted = {row.tp: Position(Offset(row.offset), row.metadata) for row in rows}
                return hand.commit(there, unit(group), file.target, GroupId(name), wanted, dry_run=do == "show")

            yield by_hand
        return

    from mrc.control.client import Client

    with Client(settings) as client:

        def by_agent(name: str, rows: Sequence[FilePosition], do: Literal["show", "commit"]) -> tuple[CommittedView, ...]:
            done: list[CommittedView] = []
            for batch in _batches(rows):
                done += client.ask_leader(
                    file.target,
                    "CommitOffsets",
                    deadline_s=COMMIT_S,
                    replication_group=group.name,
                    group=name,
                    epoch=file.epoch or 0,
                    positions=batch,
                    dry_run=do == "show",
                )
            return tuple(done)

        yield by_agent


def _batches(rows: Sequence[FilePosition]) -> Iterator[list[dict[str, object]]]:
    """Yield positions in portions that fit into one request each."""
    batch: list[dict[str, object]] = []
    size = 0
    for row in rows:
        more = len(row.topic.encode()) + len(row.metadata.encode()) + 48
        if batch and (len(batch) == _BATCH or size + more > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append({"topic": row.topic, "partition": row.partition, "offset": row.offset, "metadata": row.metadata})
        size += more
    if batch:
        yield batch


def _show_and_ask(ctx: click.Context, before: Sequence[CommittedView], region: str, *, yes: bool) -> None:
    """Show what would be changed, and let a person type the region's name."""
    from mrc.core.model import Known

    if yes:
        return
    call = invocation(ctx)
    if call.output == "table":
        console(call).print(_committed_table(before))
    confirm(ctx, region, f"commit {sum(isinstance(row.wanted, Known) for row in before)} positions in {region}")


def _committed_table(rows: Sequence[CommittedView]) -> RenderableType:
    cells = [
        (row.group, f"{row.topic}-{row.partition}", cell(row.before), _wanted(row), _change(row), cell(row.after), row.note or None)
        for row in rows
    ]
    return grid(("group", "partition", ">before", ">wanted", ">change", ">after", "note"), cells)


def _wanted(row: CommittedView) -> str:
    from mrc.core.model import Known

    return cell(row.wanted) if isinstance(row.wanted, Known) else f"? {row.wanted.reason}"


def _change(row: CommittedView) -> str | None:
    from mrc.core.model import Known

    if isinstance(row.before, Known) and isinstance(row.wanted, Known):
        return f"{row.wanted.value - row.before.value:+.0f}"
    return None


# ---------------------------------------------------------------- apply, forget


@click.command("apply")
@click.option("--group", required=True, help="The group.")
@click.option("--region", help="The target; the region that is not active when left out.")
@_DRY
@_YES
@click.pass_context
def apply_(ctx: click.Context, group: str, region: str | None, dry_run: bool, yes: bool) -> int:
    """Commit mrc's answers for a group in the target now.

    Only for a group without members, never in the open region, never while a move runs. Shows before and after and asks for the
    region's name. Exit code 3 where a partition was left out because it has no safe offset.

    \b
    Examples:
      mrc offsets apply --group billing --dry-run
      mrc offsets apply --group billing --yes
    """
    from mrc.control.client import Client
    from mrc.core.model import Known

    call = invocation(ctx)
    settings = call.settings()
    name = call.group(settings).name
    with Client(settings) as client:
        target = region or standby(call).region

        def ask(*, dry: bool) -> tuple[CommittedView, ...]:
            found: tuple[CommittedView, ...] = client.ask_leader(
                target, "ApplyOffsets", deadline_s=COMMIT_S, replication_group=name, group=group, dry_run=dry
            )
            return found

        rows = ask(dry=True)
        if not dry_run:
            _show_and_ask(ctx, rows, target, yes=yes)
            rows = ask(dry=False)
    emit(ctx, rows, table=_committed_table)
    return Exit.OK if all(isinstance(row.wanted, Known) for row in rows) else Exit.FINDINGS


@click.command()
@click.option("--group", required=True, help="The group.")
@click.option("--topic", default="", help="On this topic only, by its name in the source.")
@_DRY
@_YES
@click.pass_context
def forget(ctx: click.Context, group: str, topic: str, dry_run: bool, yes: bool) -> None:
    """Delete the checkpoints of a group that was deleted in the source. Asks for the group's name.

    A group that still has positions there is refused: its checkpoints would come back at once. What the group has committed in
    the target stays; Kafka lets it expire.

    \b
    Examples:
      mrc offsets forget --group retired
      mrc offsets forget --group billing --topic payments --yes
    """
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:

        def ask(*, dry: bool) -> tuple[ForgottenView, ...]:
            found: tuple[ForgottenView, ...] = client.ask_leader(
                region, "ForgetCheckpoints", deadline_s=COMMIT_S, replication_group=name, group=group, topic=topic, dry_run=dry
            )
            return found

        rows = ask(dry=True)
        if not dry_run:
            if not yes:
                if call.output == "table":
                    console(call).print(_forgotten_table(rows))
                confirm(ctx, group, f"delete its {len(rows)} checkpoints in {region}")
            rows = ask(dry=False)
    emit(ctx, rows, table=_forgotten_table)


def _forgotten_table(rows: Sequence[ForgottenView]) -> RenderableType:
    cells = [(r.group, f"{r.topic}-{r.partition}", r.source_offset, "yes" if r.forgotten else "not yet") for r in rows]
    return grid(("group", "partition", ">source offset", "deleted"), cells)
