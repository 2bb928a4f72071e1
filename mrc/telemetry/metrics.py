"""The metric catalogue, computed from an agent's snapshots, or a resolver's counts, when it is scraped. What is unknown is absent.

``mrc_build_info``, ``mrc_agent_leads``, ``mrc_epoch``, ``mrc_region_open``, ``mrc_fence_proved``, ``mrc_self_fenced``,
``mrc_replication_lag_records``, ``mrc_replication_lag_seconds``, ``mrc_checkpoint_age_seconds``, ``mrc_reading_unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mrc import __version__
from mrc.core.errors import MrcError
from mrc.core.model import Known, Unknown
from mrc.core.views import FlowView, StatusView
from mrc.resolver.loop import Resolver

Snapshots = Callable[[], Sequence[StatusView]]


class StatusCollector(Collector):
    """Turns status views into metrics. A scrape never waits on a cluster; without ZooKeeper it answers with the build alone."""

    def __init__(self, snapshots: Snapshots, agent: str) -> None:
        self._snapshots = snapshots
        self._agent = agent

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every metric of the catalogue that is known now."""
        build = GaugeMetricFamily("mrc_build_info", "The agent's version.", labels=["version", "agent"])
        build.add_metric([__version__, self._agent], 1)
        yield build
        try:
            views = self._snapshots()
        except MrcError:
            return
        for view in views:
            yield from _group(view)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield nothing: the names are not registered beforehand, so that registering reads no snapshot."""
        yield from ()


def _group(view: StatusView) -> Iterator[GaugeMetricFamily]:
    group = view.replication_group
    if view.record is not None:
        epoch = GaugeMetricFamily("mrc_epoch", "Number of openings so far.", labels=["group"])
        epoch.add_metric([group], view.record.epoch)
        yield epoch
    opened = GaugeMetricFamily(
        "mrc_region_open", "1 for the region that is open; absent while the record cannot be read.", labels=["group", "region"]
    )
    fenced = GaugeMetricFamily("mrc_fence_proved", "1 where every partition leader refused the probe.", labels=["group", "region"])
    imposed = GaugeMetricFamily(
        "mrc_self_fenced", "1 where agents refuse writes by themselves, for want of a ZooKeeper majority.", labels=["group", "region"]
    )
    alone = {finding.where for finding in view.findings if finding.code == "SELF_FENCED"}
    leads = GaugeMetricFamily("mrc_agent_leads", "1 for a region's leading agent.", labels=["region", "agent"])
    for region in view.regions:
        if region.role != "unknown":
            is_open = view.record is not None and view.record.region == region.region and view.record.state == "open"
            opened.add_metric([group, region.region], float(is_open))
        fenced.add_metric([group, region.region], float(region.fence.state == "fenced"))
        imposed.add_metric([group, region.region], float(region.region in alone))
        for agent in region.agents:
            leads.add_metric([region.region, agent.id], float(agent.leads))
    yield from (opened, fenced, imposed, leads)
    yield from _flows(group, view.flows)


def _flows(group: str, flows: Sequence[FlowView]) -> Iterator[GaugeMetricFamily]:
    labels = ["group", "flow"]
    found = {
        "lag_records": GaugeMetricFamily("mrc_replication_lag_records", "Records not replicated yet.", labels=labels),
        "lag_seconds": GaugeMetricFamily("mrc_replication_lag_seconds", "Age of the oldest of them.", labels=labels),
        "checkpoint_age_s": GaugeMetricFamily("mrc_checkpoint_age_seconds", "Age of the oldest checkpoint.", labels=labels),
    }
    unknown = GaugeMetricFamily("mrc_reading_unknown", "1 for a reading that failed.", labels=[*labels, "reading", "reason"])
    for flow in flows:
        for name, metric in found.items():
            reading = getattr(flow, name)
            if isinstance(reading, Known):
                metric.add_metric([group, f"{flow.source}->{flow.target}"], reading.value)
            elif isinstance(reading, Unknown):
                unknown.add_metric([group, f"{flow.source}->{flow.target}", name, reading.reason], 1)
    yield from (*found.values(), unknown)


class ResolverCollector(Collector):
    """Turns what a resolver process has done and has before it into metrics; between two lives of its loop only the build is known."""

    def __init__(self, resolver: Callable[[], Resolver | None], region: str, instance: str) -> None:
        self._resolver = resolver
        self._region = region
        self._instance = instance

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the resolver that is known now."""
        build = GaugeMetricFamily("mrc_resolver_build_info", "The resolver's version.", labels=["version", "region", "instance"])
        build.add_metric([__version__, self._region, self._instance], 1)
        yield build
        resolver = self._resolver()
        if resolver is not None:
            yield from _resolver_counts(resolver, self._region)
            yield from _resolver_waits(resolver, self._region)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing, as `StatusCollector.describe`."""
        yield from ()


def _resolver_counts(resolver: Resolver, region: str) -> Iterator[Metric]:
    counts = resolver.counts
    found = (
        (CounterMetricFamily("mrc_resolver_events", "Events that were new.", labels=["region"]), counts.events),
        (CounterMetricFamily("mrc_resolver_came_again", "Events that had come before.", labels=["region"]), counts.came_again),
        (CounterMetricFamily("mrc_resolver_dead_letters", "Records that could not be resolved.", labels=["region"]), counts.dead_letters),
        (CounterMetricFamily("mrc_resolver_conflicts", "Final conflicts.", labels=["region"]), counts.conflicts),
        (CounterMetricFamily("mrc_resolver_compensations", "Compensations asked for.", labels=["region"]), counts.compensations),
        (CounterMetricFamily("mrc_resolver_decisions", "Conflicts that people have decided.", labels=["region"]), counts.decisions),
        (CounterMetricFamily("mrc_resolver_raised", "Events later than their region's mark.", labels=["region"]), counts.raised),
    )
    for metric, count in found:
        metric.add_metric([region], count)
        yield metric


def _resolver_waits(resolver: Resolver, region: str) -> Iterator[Metric]:
    labels = ["region", "topic", "partition"]
    origins = ["region", "topic", "partition", "origin"]
    pending = GaugeMetricFamily("mrc_resolver_pending_events", "Events that are not final.", labels=labels)
    unlisted = GaugeMetricFamily("mrc_resolver_unlisted_copies", "Copies that no mark has listed yet, or any more.", labels=labels)
    asking = GaugeMetricFamily("mrc_resolver_open_conflicts", "Conflicts that wait for a person.", labels=labels)
    mark = GaugeMetricFamily(
        "mrc_resolver_watermark_timestamp_seconds",
        "How far an origin's events are final, absent before its first mark.",
        labels=origins,
    )
    foreign = GaugeMetricFamily(
        "mrc_resolver_other_rules", "1 where the origin has other rules; what comes waits meanwhile.", labels=origins
    )
    for (topic, partition), task in dict(resolver.tasks).items():
        place = (region, topic, str(partition))
        pending.add_metric([*place], task.pending)
        unlisted.add_metric([*place], task.unlisted)
        asking.add_metric([*place], task.asking)
        for origin, stream in task.streams.items():
            if stream.watermark_ms >= 0:
                mark.add_metric([*place, origin], stream.watermark_ms / 1000)
            foreign.add_metric([*place, origin], float(origin in task.foreign))
    yield from (pending, unlisted, asking, mark, foreign)


class MetricsServer:
    """The HTTP server of one agent's metrics."""

    def __init__(self, server: WSGIServer) -> None:
        self._server = server

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


def serve_metrics(address: str, snapshots: Snapshots, agent: str) -> MetricsServer:
    """Serve an agent's ``/metrics`` at ``host:port``. Raises ``CONFIG_INVALID`` when the port is taken."""
    return serve(address, StatusCollector(snapshots, agent))


def serve(address: str, collector: Collector) -> MetricsServer:
    """Serve what a collector tells as ``/metrics`` at ``host:port``. Raises ``CONFIG_INVALID`` when that cannot be."""
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, _thread = start_http_server(int(port), addr=host, registry=registry)
    except (OSError, OverflowError, ValueError) as error:
        raise MrcError("CONFIG_INVALID", f"metrics cannot be served: {error}", where=address) from None
    return MetricsServer(server)
