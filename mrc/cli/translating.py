"""``mrc offsets translate``: one offset, or a file of positions of engines that keep theirs outside of Kafka's group offsets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid
from mrc.cli.standby import cells_of, standby

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.core.translation.positions import Place
    from mrc.core.views import TranslatedView

LINES_MAX = 1_000_000
"""Positions in a file: some hundred megabytes of memory."""

LINE_BYTES_MAX = 4096

PROGRESS_MIN = 5_000
"""Positions from which on a progress bar is shown."""

_BATCH = 1000
_BATCH_BYTES = 48 * 1024
"""What one request holds: less than agents take."""


@click.command()
@click.option("--from", "source", metavar="REGION", help="The region that the offset belongs to.")
@click.option("--topic", help="By its name in the source.")
@click.option("--partition", type=click.IntRange(min=0), help="Its number.")
@click.option("--offset", type=click.IntRange(min=0), help="Next record to read.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Many positions, one JSON object a line: region, topic, partition, offset.",
)
@click.pass_context
def translate(
    ctx: click.Context, source: str | None, topic: str | None, partition: int | None, offset: int | None, file: Path | None
) -> int:
    """Translate one offset, or a file of them, into the other region's.

    A file is for engines that keep offsets elsewhere (Flink, Spark, Connect sinks). Its answers come in its order; with
    `-o json` as one JSON object a line. Exit code 3 where one of a file's positions has no answer.

    \b
    Examples:
      mrc offsets translate --from east --topic orders --partition 0 --offset 1234
      mrc offsets translate --file savepoint.jsonl -o json > translated.jsonl
    """
    one = (source, topic, partition, offset)
    if file is not None:
        if any(part is not None for part in one):
            raise click.UsageError("--file stands alone", ctx)
        return _translate_file(ctx, file)
    if any(part is None for part in one):
        raise click.UsageError("either --from, --topic, --partition and --offset are needed, or --file", ctx)
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:
        found = client.ask_leader(
            region, "Translate", replication_group=name, source=source, topic=topic, partition=partition, offset=offset
        )
    emit(ctx, found, table=lambda answer: grid((">offset", "evidence", "detail"), [(*cells_of(answer), answer.detail)]))
    return Exit.OK


# ---------------------------------------------------------------- many


def _translate_file(ctx: click.Context, file: Path) -> int:
    """Read the whole file before anything is asked, so that a line that is wrong leaves no half answer behind."""
    import msgspec

    call = invocation(ctx)
    places = list(read_places(file))
    kept: list[TranslatedView] = []
    unanswered = 0
    bar = click.progressbar(
        length=len(places), label="translated", file=sys.stderr, hidden=len(places) < PROGRESS_MIN or not sys.stderr.isatty()
    )
    with bar:
        for answers in _answers(ctx, places):
            unanswered += sum(one.translation.type == "unknown" for one in answers)
            if call.output == "json":
                for one in answers:
                    click.echo(msgspec.json.encode(one))
            else:
                kept += answers
            bar.update(len(answers))
    if call.output != "json":
        emit(ctx, kept, table=_translated_table)
    if unanswered:
        click.echo(f"{unanswered:,} of {len(places):,} positions have no answer", err=True)
    return Exit.FINDINGS if unanswered else Exit.OK


def _answers(ctx: click.Context, places: list[Place]) -> Iterator[tuple[TranslatedView, ...]]:
    from mrc.control.client import Client

    call = invocation(ctx)
    name, region, _ = standby(call)
    with Client(call.settings()) as client:
        for batch in portions(places):
            asked = [place._asdict() for place in batch]
            yield client.ask_leader(region, "TranslateMany", deadline_s=30.0, replication_group=name, places=asked)


def portions(places: list[Place]) -> Iterator[list[Place]]:
    """Yield the positions in portions that fit into one request each."""
    left = iter(places)
    waiting = next(left, None)
    while waiting is not None:
        batch, size = [waiting], _size(waiting)
        waiting = None
        for place in islice(left, _BATCH - 1):
            size += _size(place)
            if size > _BATCH_BYTES:
                waiting = place
                break
            batch.append(place)
        yield batch
        if waiting is None:
            waiting = next(left, None)


def _size(place: Place) -> int:
    return len(place.region.encode()) + len(place.topic.encode()) + 32


def read_places(file: Path) -> Iterator[Place]:
    """Yield the positions of a file of JSON lines; empty lines are passed over.

    Raises:
        MrcError: ``BAD_REQUEST`` naming file and line.
    """
    from mrc.core.errors import MrcError
    from mrc.core.translation.positions import decode_place

    found = 0
    with file.open("rb") as lines:
        for number in range(1, sys.maxsize):
            line = lines.readline(LINE_BYTES_MAX)
            if not line:
                return
            if not line.strip():
                continue
            found += 1
            where = f"{file}:{number}"
            if len(line) == LINE_BYTES_MAX:
                raise MrcError("BAD_REQUEST", f"the line has {LINE_BYTES_MAX:,} bytes or more", where=where)
            if found > LINES_MAX:
                raise MrcError("BAD_REQUEST", f"the file has more than {LINES_MAX:,} positions", where=where)
            yield decode_place(line, where)


def _translated_table(found: list[TranslatedView]) -> RenderableType:
    rows = [(t.region, f"{t.topic}-{t.partition}", t.offset, *cells_of(t.translation), t.translation.detail) for t in found]
    return grid(("from", "partition", ">offset", ">there", "evidence", "detail"), rows)
