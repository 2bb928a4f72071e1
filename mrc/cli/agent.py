"""``mrc agent``: run an agent of a region."""

from __future__ import annotations

import click

from mrc.cli.invocation import invocation


@click.group()
def agent() -> None:
    """Run an agent of a region. Two per region make a pair: one leads, the other takes over."""


@agent.command()
@click.option("--region", required=True, help="The agent's own region.")
@click.option("--agent", "agent_id", metavar="ID", help="Which of the region's agents; optional where there is one only.")
@click.pass_context
def run(ctx: click.Context, region: str, agent_id: str | None) -> int:
    """Run until SIGTERM, which hands the lead over at once. Logs go to stderr, metrics and gRPC to the configured addresses.

    \b
    Examples:
      mrc agent run --region east --agent east-a --config mrc.yaml
    """
    settings = invocation(ctx).settings()
    from mrc.wiring.agent import run as run_agent

    return run_agent(settings, region, agent_id)
