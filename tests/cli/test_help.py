"""Help: quick, whole, and true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from mrc.cli.exits import MEANINGS, Exit
from mrc.cli.main import COMMANDS, cli
from tests.cli.running import run

SLOW = ("asyncio", "confluent_kafka", "grpc", "kazoo", "rich", "structlog", "yaml")

ASK_FOR = """
import json, sys
from mrc.cli.main import run
code = run({arguments!r})
print(json.dumps([code, sorted({slow!r} & sys.modules.keys())]), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["completion", "--help"], ["no-such-command"]])
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    program = ASK_FOR.format(arguments=arguments, slow=set(SLOW))
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    code, slow = json.loads(answer.stderr.splitlines()[-1])
    assert slow == []
    assert code in (Exit.OK, Exit.USAGE)


def test_completing_a_command_name_imports_nothing_slow() -> None:
    program = "import sys\nfrom mrc.cli.main import cli\n"
    program += "items = cli.shell_complete(cli.make_context('mrc', [], resilient_parsing=True), 's')\n"
    program += f"print([item.value for item in items], sorted({set(SLOW)!r} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "['status', 'switchover', 'skip', 'sandbox', 'sim'] []"


def test_help_lists_every_command_and_every_exit_code() -> None:
    text = run("--help").stdout
    for name, (_, short) in COMMANDS.items():
        assert f"  {name} " in text
        assert short in text
    for code in Exit:
        assert f"  {int(code)} " in text
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize("arguments", [("-o", "json", "version"), ("version", "-o", "json"), ("version", "--output=json")])
def test_options_may_stand_before_or_after_the_command(arguments: tuple[str, ...]) -> None:
    assert json.loads(run(*arguments).stdout)["mrc"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    answer = run("completion", shell)
    assert answer.returncode == 0
    assert "_MRC_COMPLETE" in answer.stdout


def test_the_completion_script_gets_its_answers_from_mrc() -> None:
    words = {"_MRC_COMPLETE": "bash_complete", "COMP_WORDS": "mrc switch", "COMP_CWORD": "1"}
    assert run(environment=words).stdout.strip() == "plain,switchover"


def every_help(command: click.Command, context: click.Context) -> Iterator[tuple[str, list[str], str]]:
    """Each command's path, the lines of its examples as they were written, and what `--help` shows."""
    written = (command.help or "").partition("Examples:\n")[2].partition("\n\n")[0]
    yield context.command_path, [line.strip() for line in written.splitlines()], command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from every_help(child, click.Context(child, info_name=name, parent=context))


def test_help_shows_examples_line_by_line_and_no_marks_of_the_source() -> None:
    found = list(every_help(cli, click.Context(cli, info_name="mrc")))
    assert [path for path, _, text in found if "\\b" in text or "\b" in text] == []
    examples = [(path, line, text) for path, lines, text in found for line in lines]
    assert len(examples) > 50
    assert [(path, line) for path, line, text in examples if line not in map(str.strip, text.splitlines())] == []
