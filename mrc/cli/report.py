"""The report of an execution, as a page for people or as the document that it is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from mrc.config import Settings


@click.command()
@click.argument("execution")
@click.option("--output", "-o", "form", type=click.Choice(["html", "json"]), help="The page, or the document; html when left out.")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Write it there, whole or not at all; else to stdout.")
@click.option("--archived", is_flag=True, help="Read the archive in the region's own cluster: no agents, no ZooKeeper.")
@click.option("--region", help="With --archived: the region whose cluster is asked. Each has all that has ended.")
@click.pass_context
def report(ctx: click.Context, execution: str, form: str | None, file: Path | None, archived: bool, region: str | None) -> int:
    """Show what EXECUTION did, what it cost, and whether that kept to the objectives.

    A page of HTML that loads nothing and holds no script, to be read in a browser, kept and passed on; or a JSON document with a
    version. Also of an execution that still runs. Where no agent answers, the regions' archives are asked, one after the other.

    \b
    Examples:
      mrc report 1795497709477-3fa2c1 --file report.html
      mrc report 1795497709477-3fa2c1 --output json
      mrc report 1795497709477-3fa2c1 --archived --region west --file report.html
    """
    from mrc.core.failover.report import decode_report, encode_report
    from mrc.core.failover.report_page import page

    call = invocation(ctx)
    if archived != (region is not None):
        raise click.UsageError("--archived and --region belong together", ctx)
    if form == "json":
        call.output = "json"  # errors too
    elif form is None and call.output == "yaml":
        raise click.UsageError("a report is html or json", ctx)
    settings = call.settings()
    found = decode_report(_archived(call, settings, execution, region) if region is not None else _of_agents(call, settings, execution))
    as_json = form == "json" or (form is None and call.output == "json")
    said = encode_report(found) if as_json else page(found).encode()
    if file is None:
        click.echo(said, nl=False)
    else:
        _write(file, said)
        click.echo(f"written: {file}", err=True)
    return Exit.OK


def _of_agents(call: Invocation, settings: Settings, execution: str) -> str:
    """Return the document as agents have it; where none answers, as it was archived."""
    from mrc.control.client import Client

    try:
        with Client(settings) as client:
            document: str = client.ask_any("GetReport", execution_id=execution)
            return document
    except MrcError as error:
        if error.code not in ("AGENT_UNREACHABLE", "ZOOKEEPER_UNREACHABLE"):
            raise
        click.echo(f"no agent has it ({error.code}); the archives are asked", err=True)
        return _of_archives(call, settings, execution, error)


def _of_archives(call: Invocation, settings: Settings, execution: str, silent: MrcError) -> str:
    """Return the document from the first region that has the execution. Raises ``silent`` where none answers."""
    failed: list[MrcError] = []
    for region in dict.fromkeys(name for flow in call.group(settings).flows for name in (flow.source, flow.target)):
        try:
            return _archived(call, settings, execution, region)
        except MrcError as error:
            if error.kind == "bug":
                raise
            failed.append(error)
    raise next((error for error in failed if error.code in ("UNKNOWN_EXECUTION", "GARBLED_RECORD", "VERSION_MISMATCH")), silent)


def _archived(call: Invocation, settings: Settings, execution: str, region: str) -> str:
    from mrc.core.failover.shown import report_of
    from mrc.core.model import Unknown
    from mrc.wiring import direct

    one = direct.history(settings, call.group(settings), region).get(execution)
    if one is None:
        raise MrcError("UNKNOWN_EXECUTION", f"no execution {execution!r} is archived in {region}")
    if isinstance(one, MrcError):
        raise one
    ended_at_ms = one.run().ended_at_ms
    ledgers = Unknown("not-archived", "the divergence ledger is in ZooKeeper, and this was read from the archive", ended_at_ms)
    return report_of(one, ledgers, ended_at_ms)


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises ``BAD_REQUEST``."""
    from mrc.cli.files import write_whole

    try:
        write_whole(file, data)
    except OSError as error:
        raise MrcError("BAD_REQUEST", f"cannot be written: {error.strerror}", where=str(file)) from None
