"""``mrc version``: which mrc this is, and which ones the agents are.

The command line's own version is printed whatever else fails: it is what a report about a failure begins with.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import click

import mrc
from mrc.cli.exits import Exit
from mrc.cli.invocation import Invocation, invocation
from mrc.cli.output import emit, grid
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.table import Table

    from mrc.control.client import Answer

DEADLINE_S = 1.0
"""How long the agents, asked all at once, have to answer."""


@click.command()
@click.pass_context
def version(ctx: click.Context) -> int:
    """Print the version of the command line and of every configured agent.

    All agents are asked at once and have one second. Without a configuration the command line's own is all there is. Exit
    code 3 where an agent has another version than the command line.

    \b
    Examples:
      mrc version
      mrc version --output json | jq '.agents[] | select(.differs)'
    """
    agents, refused = _agents(invocation(ctx))
    emit(ctx, {"mrc": mrc.__version__, "python": platform.python_version(), "agents": agents}, table=_table)
    if refused is not None:
        raise refused
    return Exit.FINDINGS if any(agent["differs"] for agent in agents) else Exit.OK


def _agents(call: Invocation) -> tuple[list[dict[str, Any]], MrcError | None]:
    """Return one row per configured agent, and why there are none where the configuration cannot be read.

    No configuration at all is no error, unless somebody named one.
    """
    try:
        settings = call.settings()
    except MrcError as error:
        nobody_named_one = error.code == "CONFIG_NOT_FOUND" and call.config is None
        return [], None if nobody_named_one else error
    from mrc.control.client import Client

    with Client(settings) as client:
        return [_row(answer) for answer in client.ask_all("Version", deadline_s=DEADLINE_S)], None


def _row(answer: Answer) -> dict[str, Any]:
    said = None if answer.error is not None else answer.view.version
    return {
        "region": answer.asked.region,
        "agent": answer.asked.agent,
        "address": answer.asked.address,
        "version": said,
        "leads": None if answer.error is not None else answer.view.leads,
        "differs": said is not None and said != mrc.__version__,
        "error": None if answer.error is None else {"code": answer.error.code, "message": answer.error.message},
    }


def _table(said: dict[str, Any]) -> Table:
    rows = [("mrc", said["mrc"], ""), ("python", said["python"], "")]
    rows += [(f"agent {agent['agent']}", agent["version"] or "?", _remark(agent)) for agent in said["agents"]]
    return grid(("part", "version", ""), rows)


def _remark(agent: dict[str, Any]) -> str:
    if agent["error"] is not None:
        return f"{agent['error']['code']}: {agent['error']['message']} ({agent['address']})"
    return "differs from the command line" if agent["differs"] else ""
