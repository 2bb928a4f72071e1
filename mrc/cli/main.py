"""The command ``mrc``: its table of commands, loaded one by one, and the one funnel that every error leaves through.

Invariant: help and completion of command names import click and the standard library only.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from mrc.cli.exits import MEANINGS, Exit, exit_of
from mrc.cli.invocation import Invocation, take_options
from mrc.cli.output import show_error
from mrc.core.errors import MrcError

COMMANDS: dict[str, tuple[str, str]] = {
    "status": ("mrc.cli.status:status", "Which region is open, fences, flows, lag and leaders."),
    "lag": ("mrc.cli.status:lag", "How far each flow is behind, in records and seconds."),
    "offsets": ("mrc.cli.offsets:offsets", "Positions of groups: show, translate, export, commit."),
    "plan": ("mrc.cli.moves:plan", "Show what a move would do, and what forbids it."),
    "switchover": ("mrc.cli.moves:switchover", "Move the unit to a healthy region, losing nothing."),
    "failover": ("mrc.cli.moves:failover", "Open a region after the active one has died."),
    "failback": ("mrc.cli.moves:failback", "Go home after a failover: recover, account, switch over."),
    "rebuild": ("mrc.cli.moves:rebuild", "Make a region anew that came back empty or without its log."),
    "fence": ("mrc.cli.moves:fence", "Close the open region to writers until a person opens it again."),
    "history": ("mrc.cli.history:history", "List the executions, newest first."),
    "report": ("mrc.cli.report:report", "What an execution did and cost, as a page or as JSON."),
    "watch": ("mrc.cli.moves:watch", "Follow an execution until it ends."),
    "approve": ("mrc.cli.moves:approve", "Let a waiting execution go on."),
    "abort": ("mrc.cli.moves:abort", "End an execution and undo what it did."),
    "skip": ("mrc.cli.moves:skip", "Let a waiting execution go on without the step that waits."),
    "divergence": ("mrc.cli.divergence:divergence", "Records that one region has and the other never got."),
    "runbook": ("mrc.cli.runbook:runbook", "Runbooks: list, show, lint, render, diagram."),
    "conflicts": ("mrc.cli.conflicts:conflicts", "What resolvers decided, why, and whether regions agree."),
    "rules": ("mrc.cli.rules:rules", "Conflict rules: check them, try them on stories and on history."),
    "resolver": ("mrc.cli.resolver:resolver", "Decide conflicts between regions that are both written."),
    "config": ("mrc.cli.config:config", "The configuration: check it, or make one."),
    "init": ("mrc.cli.adopting:init", "Make a running MirrorMaker 2 estate mrc's."),
    "unmanage": ("mrc.cli.adopting:unmanage", "Give an estate back as it was."),
    "gate": ("mrc.cli.gate:gate", "Whether a region's brokers may start for applications."),
    "agent": ("mrc.cli.agent:agent", "Run an agent of a region."),
    "sandbox": ("mrc.cli.sandbox:sandbox", "Two real regions on this machine."),
    "sim": ("mrc.cli.sim:sim", "Simulate moves in a world in which things go wrong."),
    "version": ("mrc.cli.version:version", "Versions of the command line and of the agents."),
    "completion": ("mrc.cli.completion:completion", "Print the completion script of a shell."),
}
"""Name -> (module:attribute, short help), in the order of the help."""


class CommandTable(click.Group):
    """A group whose commands are imported when they are run or asked about, one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every name, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        take_options(command, hidden=True)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, with a suggestion where a name is misspelt."""
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise click.UsageError(f"there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else ""), ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the exit codes mean."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names and options without importing any command."""
        names = [CompletionItem(name, help=short) for name, (_, short) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.command(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Run Kafka topics and consumer groups as one unit across regions.

    The options below may stand before or after a command.
    """


take_options(cli, hidden=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error ends here, as words on stderr."""
    call = Invocation()
    try:
        result = cli.main(None if arguments is None else list(arguments), prog_name="mrc", standalone_mode=False, obj=call)
        sys.stdout.flush()
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "mrc"
        show_error(MrcError("BAD_REQUEST", error.format_message()), call, f"`{path} --help` says what may be asked.")
        return Exit.USAGE
    except click.ClickException as error:
        show_error(MrcError("BAD_REQUEST", error.format_message()), call)
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has seen enough. Python would complain once more when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except MrcError as error:
        return _failed(error, call)
    except Exception as error:  # noqa: BLE001 - the funnel: whatever nobody foresaw is mrc's fault, and says so
        traceback.print_exception(error)
        show_error(MrcError("INVARIANT", f"{type(error).__name__}: {error}"), call)
        return Exit.BUG
    return result if isinstance(result, int) else Exit.OK


def _failed(error: MrcError, call: Invocation) -> int:
    code = exit_of(error)
    if call.verbose or code is Exit.BUG:
        traceback.print_exception(error)
    show_error(error, call)
    return code
