"""``mrc resolver``: run the process that decides conflicts."""

from __future__ import annotations

from pathlib import Path

import click

from mrc.cli.invocation import invocation


@click.group()
def resolver() -> None:
    """Decide conflicts between regions that are both written: one or more processes in each region.

    Every region resolves by itself, from its own topics and the copies that MirrorMaker 2 makes of the others', and all come to the
    same decisions. docs/conflicts.md has the rules, the headers and what is promised.
    """


@resolver.command()
@click.option("--region", required=True, help="The region in which it runs; it talks to this region's Kafka alone.")
@click.option(
    "--instance",
    default="a",
    show_default=True,
    metavar="NAME",
    help="The process's own name in the region. Its partitions and its open transaction are waiting for it when it comes back.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Its state on local disk, a copy of the changelog; without it a start takes longer. Else .mrc-resolver beside the configuration.",
)
@click.option("--metrics", metavar="HOST:PORT", help="Where to serve Prometheus metrics; else nowhere.")
@click.pass_context
def run(ctx: click.Context, region: str, instance: str, state: Path | None, metrics: str | None) -> int:
    """Resolve until SIGTERM. Logs go to stderr.

    The replication group is active-active and names its rules (`rules: conflicts.yaml`). For each topic T of the rules it reads T and
    the other regions' copies REGION.T, and writes, with as many partitions as T has: `mrc.resolved.T`, what stands, by key,
    provisional until every region's mark has passed; `mrc.conflicts.T`, every final conflict with each step of its decision;
    `mrc.compensations.T`, what losing events of this region ask for (`on_loss`); `mrc.dead-letters.T`, what could not be resolved,
    with the reason; `mrc.watermarks.T`, this region's marks, which the flows must copy, and none of the others; and
    `mrc.changelog.T.internal`, its state.

    What is written, the state and the positions are one Kafka transaction: each event counts once, whatever dies. More processes,
    each with a name of its own, share the partitions. Where a topic is missing it waits, and says for which.

    \b
    Examples:
      mrc resolver run --region east --config mrc.yaml
      mrc resolver run --region east --instance b --state /var/lib/mrc/resolver-b --metrics 127.0.0.1:9410
    """
    call = invocation(ctx)
    settings = call.settings()
    from mrc.wiring.resolver import run as run_resolver

    return run_resolver(settings, call.group(settings), region, instance, state, metrics)
