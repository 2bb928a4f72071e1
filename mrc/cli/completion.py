"""``mrc completion``: the script that makes a shell complete mrc's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      mrc completion bash > ~/.local/share/bash-completion/completions/mrc
      mrc completion zsh > ~/.zfunc/_mrc
      mrc completion fish > ~/.config/fish/completions/mrc.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        ctx.fail(f"no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "mrc", "_MRC_COMPLETE").source())
