"""Commands are documented, and commands in documents are commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mrc.cli.invocation import Invocation
from mrc.cli.main import cli
from mrc.core.errors import CODES
from tests.docs.reading import ROOT, anchors, blocks, documents, prose


def every_command(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield context.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from every_command(child, click.Context(child, info_name=name, parent=context))


COMMANDS = dict(every_command(cli, click.Context(cli, info_name="mrc")))


@pytest.fixture(autouse=True)
def any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let options name files that are not there: what is judged is the command, not the folder that a reader runs it in."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


def parse(words: list[str], *, whole: bool) -> None:
    """Parse a command as mrc would, up to what would be run. Raises `click.UsageError`.

    Args:
        whole: also require what the command requires; else only what is written has to exist.
    """
    context = cli.make_context("mrc", words[1:], obj=Invocation(), resilient_parsing=not whole)
    command: click.Command = cli
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context = found.make_context(found.name, rest, parent=context, resilient_parsing=not whole)
        command = found


def commands_of(text: str) -> Iterator[list[str]]:
    """Every call of mrc on lines that begin with it, with or without a prompt, alone or in a pipe or list."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"^\$ ", "", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            said = list(lexer)
        except ValueError:
            continue  # not a line of a shell
        for word in [*said, ";"]:
            if set(word) <= set("();<>|&"):
                if words[:1] == ["mrc"]:
                    yield words
                words = []
            elif not (words and words[0] != "mrc"):
                words.append(word)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_call_in_a_code_block_is_one_that_mrc_takes(path: Path) -> None:
    for block in blocks(path.read_text()):
        for words in commands_of(block.text):
            try:
                parse(words, whole=True)
            except click.UsageError as error:
                pytest.fail(f"{path.name}: {shlex.join(words)}: {error.format_message()}")


def test_every_call_in_a_sentence_names_a_command_and_options_that_exist() -> None:
    sentences = {path.name: prose(path.read_text()) for path in documents()}
    sentences |= {f"error {name}": f"{row.means} {row.remedy}" for name, row in CODES.items()}
    for name, text in sentences.items():
        for call in re.findall(r"`(mrc [^`\n]+)`", text):
            words = [word for word in shlex.split(call) if "…" not in word and word != "..."]
            try:
                parse([word for word in words if not re.fullmatch(r"[A-Z_]+", word)], whole=False)
            except click.UsageError as error:
                pytest.fail(f"{name}: {call}: {error.format_message()}")


def test_code_blocks_hold_calls_to_judge() -> None:
    found = [words for path in documents() for block in blocks(path.read_text()) for words in commands_of(block.text)]
    assert len(found) > 20
    assert ["mrc", "switchover", "west", "--yes"] in found


@pytest.mark.parametrize(
    "words", [["mrc", "swichover", "west"], ["mrc", "switchover"], ["mrc", "status", "--wach"], ["mrc", "plan", "move", "west"]]
)
def test_a_call_that_mrc_does_not_take_is_seen(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(words, whole=True)


def test_every_command_has_its_section_with_every_option_and_an_example_or_subcommands() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(re.findall(r"^#+ (mrc .*)\n((?:(?!^#).*\n?)*)", text, re.MULTILINE))
    for path, command in COMMANDS.items():
        if command is cli:
            continue
        body = sections[path]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(name in body for name in option.opts), f"{path} {option.name}"
        assert isinstance(command, click.Group) or any(path in b.text for b in blocks(body)), f"{path} has no example"
        assert path.replace(" ", "-") in anchors(text)
