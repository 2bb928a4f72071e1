"""The report of an execution as one page of HTML: no script, nothing loaded from anywhere, readable in light and dark and on paper.

Everything goes through `mrc.core.failover.markup`, so that a key, a group's name or a message is text, whatever stands in it. A policy
in the page's head forbids what the page has none of: should any of it become markup all the same, the browser loads and runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from mrc.core.failover.markup import Markup, element, joined
from mrc.core.failover.measured import Rereads
from mrc.core.failover.plots import Bar, Line, Mark, Span, lines, timeline
from mrc.core.failover.report import Divergence, Load, Objective, Report, ReportStep, Sums
from mrc.core.model import Known, Reading, Unknown

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2127; --soft: #5f6b7a; --edge: #d8dde3; --panel: #f6f7f9;
  --first: #2563b0; --second: #b45309; --good: #1a7f4b; --bad: #b3261e; --wait: #c9a227; --unread: #8a94a0; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --ink: #e3e7ec; --soft: #98a3b0; --edge: #333a43; --panel: #1b1f25;
  --first: #6ea8fe; --second: #f0a45d; --good: #4cc38a; --bad: #ff8a80; --wait: #d9b84a; --unread: #6b7683; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 960px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 4px; font-weight: 600; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 40px 0 10px; padding-bottom: 5px; border-bottom: 1px solid var(--edge); font-weight: 600; }
h3 { font-size: 14px; margin: 18px 0 2px; font-weight: 600; }
p { margin: 4px 0; overflow-wrap: anywhere; white-space: pre-line; }
.soft, caption { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--second); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(195px, 1fr)); gap: 1px; background: var(--edge);
  border: 1px solid var(--edge); margin: 22px 0 0; }
.figures > div { background: var(--ground); padding: 12px 14px; }
.figures .name { font-size: 12px; color: var(--soft); }
.figures .value { font-size: 23px; font-weight: 600; font-variant-numeric: tabular-nums; }
.figures p { font-size: 13px; line-height: 1.4; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 16px 0 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--edge); padding: 5px 12px 5px 0; }
td { vertical-align: top; border-bottom: 1px solid var(--edge); padding: 5px 12px 5px 0; overflow-wrap: anywhere; white-space: pre-line; }
td:first-child { min-width: 120px; }
th.right, td.right { text-align: right; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; margin: 4px 0 2px; }
svg text { font-size: 11px; fill: var(--soft); } svg .name, svg .end { text-anchor: end; } svg .tick { text-anchor: middle; }
svg text.name { fill: var(--ink); } svg .grid { stroke: var(--edge); stroke-width: 1; }
svg .mark { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; } svg .marked { fill: var(--ink); }
svg .bar { fill: var(--first); } svg .bar.undone { fill: var(--unread); } svg .bar.open { fill: var(--second); }
svg .bar.no-return { fill: var(--second); } svg .bar.wait { fill: var(--wait); }
svg .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } svg .line.first { stroke: var(--first); }
svg .line.second { stroke: var(--second); } svg .dot.first { fill: var(--first); } svg .dot.second { fill: var(--second); }
svg .unread { fill: var(--unread); opacity: .22; }
svg .gap { fill: var(--unread); fill-opacity: .1; stroke: var(--unread); stroke-dasharray: 4 3; }
.key { font-size: 13px; color: var(--soft); } .key b { font-weight: 600; }
.key .first { color: var(--first); } .key .second { color: var(--second); }
footer { margin-top: 48px; font-size: 12px; color: var(--soft); }
@media print { body { padding: 0; } h2 { break-after: avoid; } svg, tr { break-inside: avoid; } }
"""

PARTITIONS_MAX = 500
"""How many partitions of the divergence are listed; the document has them all."""

_VERDICTS = {
    "met": ("good", "within the objective of {} s"),
    "missed": ("bad", "over the objective of {} s"),
    "not-exceeded": ("open", "not over the objective of {} s, as far as is known"),
    "unknown": ("open", "not known; the objective is {} s"),
    "not-set": ("soft", "no objective is set"),
}
_BARS = {"undone": "undone", "undoing": "undone", "running": "open", "verifying": "open", "waiting": "open"}
_STATUS = {"succeeded": "good", "aborted": "bad", "superseded": "bad"}


def page(report: Report) -> str:
    """Return the page of a report, a whole document. The same report gives the same page."""
    title = f"{report.kind} of {report.replication_group}: {_way(report)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{title}, {report.execution}"),
        element("style", Markup(STYLE)),
    )
    sections = (*_top(report, title), *_steps(report), *_load(report), *_rereads(report), *_divergence(report), *_findings(report))
    foot = element(
        "footer", f"Report version {report.version} of execution {report.execution}, as of {_time(report.as_of_ms)}. Times of day are UTC."
    )
    return f"<!doctype html>\n{element('html', head, element('body', *sections, *_happenings(report), foot), lang='en')}\n"


def _way(report: Report) -> str:
    return report.source if report.kind == "fence" else f"{report.source} to {report.target}"


# ---------------------------------------------------------------- the figures


def _top(report: Report, title: str) -> Iterable[Markup]:
    yield element("h1", f"{title[:1].upper()}{title[1:]}")
    status = element("span", report.status, class_=_STATUS.get(report.status, "open"))
    took_s = ((report.ended_at_ms or report.as_of_ms) - report.started_at_ms) / 1000
    yield element(
        "p",
        status,
        f" after {_seconds(took_s)}" if report.ended_at_ms else f" for {_seconds(took_s)}",
        f", begun {_time(report.started_at_ms)}",
    )
    if report.waits_for:
        yield element("p", f"It waits for: {report.waits_for}", class_="open")
    yield element("div", *map(_objective, report.objectives), *_other_figures(report), class_="figures")
    rows = [
        ("execution", report.execution),
        ("asked by", report.actor),
        ("reason", report.reason),
        ("runbook", f"{report.runbook}, file {report.runbook_hash[:12]}"),
        ("epoch", str(report.epoch)),
        ("attested", f"{report.actor} attests that {report.source} is dead" if report.attested else ""),
        ("in the place of", report.supersedes),
        ("left out", "\n".join(report.left_out)),
    ]
    yield element("dl", *(joined((element("dt", name), element("dd", said))) for name, said in rows if said))


def _objective(one: Objective) -> Markup:
    kind, said = _VERDICTS[one.verdict]
    verdict = said.format(f"{one.wanted_s:g}" if one.wanted_s is not None else "-")
    name = "RPO: what was left behind" if one.name == "rpo" else "RTO: from beginning to end"
    value = f"at least {_seconds(one.seconds.value)}" if isinstance(one.seconds, Known) and one.at_least else _figure(one.seconds)
    return _card(name, value, element("p", verdict, class_=kind), element("p", one.detail, class_="soft"))


def _other_figures(report: Report) -> Iterable[Markup]:
    blocked = report.write_block_s
    waited = f"; the move waited {_seconds(report.waited_s)} for people" if report.waited_s else ""
    said = f"from the source's fence until the target took writes{waited}" if isinstance(blocked, Known) else blocked.detail
    yield _card("Writes stood still", _figure(blocked), element("p", said, class_="soft"))
    again = report.rereads
    if isinstance(again, Unknown):
        yield _card("Read again by groups", "unknown", element("p", again.detail, class_="soft"))
        return
    value = f"at most {again.value.repeats_max:,}" if again.value.repeats_max else "0"
    yield _card(
        "Read again by groups", "unknown" if again.value.unknown else value, element("p", _of_positions(again.value), class_="soft")
    )


def _of_positions(again: Rereads) -> str:
    parts = [f"{again.exact:,} positions of {again.groups:,} groups are exact"]
    parts += [f"{again.bounded:,} bounded: {again.repeats_max:,} records at most"] if again.bounded else []
    parts += [f"{again.unknown:,} without an answer"] if again.unknown else []
    return ", ".join(parts)


def _card(name: str, value: str, *more: Markup) -> Markup:
    return element("div", element("div", name, class_="name"), element("div", value, class_="value"), *more)


def _figure(reading: Reading[float]) -> str:
    return _seconds(reading.value) if isinstance(reading, Known) else "unknown"


# ---------------------------------------------------------------- what happened when


def _steps(report: Report) -> Iterable[Markup]:
    yield element("h2", "Steps")
    span = Span(report.started_at_ms, max(report.as_of_ms, report.started_at_ms + 1))
    bars = [_bar(step, report) for step in report.steps]
    yield element("div", timeline(span, report.started_at_ms, bars, _marks(report)), class_="wide")
    yield element(
        "p", "Seconds from the beginning. Amber: the point of no return; yellow: waiting for a person; grey: undone.", class_="key"
    )
    rows = [
        (
            step.name,
            step.action,
            step.state,
            _offset(step.began_at_ms, report),
            _took(step, report),
            str(step.failures or ""),
            step.evidence,
        )
        for step in report.steps
    ]
    yield _table(("step", "action", "state", ">began", ">took", ">failed", "evidence"), rows)


def _bar(step: ReportStep, report: Report) -> Bar:
    waits = tuple(Span(wait.began_at_ms, wait.ended_at_ms or report.as_of_ms) for wait in report.waits if wait.step == step.name)
    kind = "no-return" if step.point_of_no_return else _BARS.get(step.state, "done")
    spans = (Span(step.began_at_ms, step.ended_at_ms or report.as_of_ms),) if step.began_at_ms else ()
    return Bar(step.name, spans, waits, _took(step, report), kind)


def _marks(report: Report) -> list[Mark]:
    return [Mark(one.at_ms, "taken over") for one in report.happenings if one.what == "taken over"][:5]


def _took(step: ReportStep, report: Report) -> str:
    return _seconds(((step.ended_at_ms or report.as_of_ms) - step.began_at_ms) / 1000) if step.began_at_ms else ""


def _offset(at_ms: int | None, report: Report) -> str:
    return f"{(at_ms - report.started_at_ms) / 1000:.2f} s" if at_ms else ""


def _happenings(report: Report) -> Iterable[Markup]:
    if not report.happenings:
        return
    yield element("h2", "What interrupted it, and what people said")
    rows = [(_offset(one.at_ms, report), one.what, one.step, one.agent, one.detail) for one in report.happenings]
    yield _table((">at", "what", "step", "agent", ""), rows)


# ---------------------------------------------------------------- what was measured


def _load(report: Report) -> Iterable[Markup]:
    yield element("h2", "Lag and throughput")
    if isinstance(report.load, Unknown):
        yield element("p", f"Unknown: {report.load.detail}.", class_="soft")
        return
    load = report.load.value
    times = [sample.at_ms for sample in load.samples]
    gaps = [sample.gap for sample in load.samples]
    span = Span(min(times[0], report.started_at_ms), max(times[-1], report.as_of_ms))
    marks = [Mark(report.started_at_ms, "begun", before=True)]
    marks += [Mark(step.ended_at_ms, "opened") for step in report.steps if step.point_of_no_return and step.ended_at_ms]
    source, target = f"written in {report.source}", f"written in {report.target}"
    drawn = (
        (
            f"Lag of the flow from {report.source} to {report.target}, records",
            (Line("lag", tuple(s.lag_records for s in load.samples), "first"),),
        ),
        (f"Age of the oldest record that {report.target} lacked, seconds", (Line("age", tuple(s.lag_s for s in load.samples), "first"),)),
        (
            "Throughput, offsets per second",
            (Line(source, tuple(r.source for r in load.rates), "first"), Line(target, tuple(r.target for r in load.rates), "second")),
        ),
    )
    for title, shown in drawn:
        yield element("h3", title)
        yield element("div", lines(title, span, report.started_at_ms, times, gaps, shown, marks), class_="wide")
        yield from _key(shown)
    yield element("p", f"{len(times)} samples, one per {load.every_ms / 1000:g} s. {_holes(load)}", class_="key")


def _key(drawn: Sequence[Line]) -> Iterable[Markup]:
    if len(drawn) > 1:
        said = [joined((element("b", "— ", class_=line.kind), line.name, "  ")) for line in drawn]
        yield element("p", *said, class_="key")


def _holes(load: Load) -> str:
    """Say what was not read, and why."""
    counts: dict[str, int] = {}
    for sample in load.samples:
        for reading in dict.fromkeys((sample.lag_records, sample.lag_s, sample.source_end, sample.target_end)):
            if isinstance(reading, str):
                counts[reading] = counts.get(reading, 0) + 1
    gaps = sum(sample.gap for sample in load.samples)
    parts = [f"{word} ({count})" for word, count in sorted(counts.items())]
    said = f"Grey, where a reading is missing: {', '.join(parts)}. " if parts else ""
    return said + (f"Gaps, in which nobody took samples: {gaps}." if gaps else "No gaps.")


def _rereads(report: Report) -> Iterable[Markup]:
    yield element("h2", "What groups read again")
    if isinstance(report.rereads, Unknown):
        yield element("p", f"Unknown: {report.rereads.detail}.", class_="soft")
        return
    again = report.rereads.value
    yield element("p", f"{_of_positions(again)}.")
    if report.kind == "failover":
        yield element(
            "p", "What a group processed after its last captured commit is read again too; how much that was is not known.", class_="soft"
        )
    rows = [(one.group, f"{one.exact:,}", f"{one.bounded:,}", f"{one.repeats_max:,}", f"{one.unknown:,}") for one in again.listed]
    if rows:
        yield _table(("group", ">exact", ">bounded", ">records again, at most", ">without an answer"), rows)
    if again.groups > len(rows):
        yield element("p", f"and {again.groups - len(rows):,} groups more, none of which reads more again", class_="soft")


def _divergence(report: Report) -> Iterable[Markup]:
    if report.recovered is not None:
        yield from _recovered(report.recovered)
        return
    yield element("h2", "What was left behind")
    if isinstance(report.divergence, Unknown):
        nothing = report.divergence.reason == "no-failover"
        yield element("p", f"Nothing: {report.divergence.detail}." if nothing else f"Unknown: {report.divergence.detail}.", class_="soft")
        return
    yield from _left_behind(report.divergence.value)


def _recovered(found: Reading[tuple[Divergence, ...]]) -> Iterable[Markup]:
    """Yield, per failover, what stayed behind and what became of it."""
    yield element("h2", "What was recovered")
    if isinstance(found, Unknown):
        yield element("p", f"Unknown: {found.detail}.", class_="soft")
    elif not found.value:
        yield element("p", "Nothing: no failover had left anything behind that was not accounted for.", class_="soft")
    else:
        for one in found.value:
            yield element("h3", f"Of failover {one.failover}")
            yield from _left_behind(one)


_FATES = (">re-emitted", ">superseded", ">quarantined", ">unexplained")


def _left_behind(found: Divergence) -> Iterable[Markup]:
    """Yield the ranges, and the sums once there are any."""
    yield element("p", _left(found))
    settled = any(one.sums for one in found.partitions)
    heads = ("partition", ">from offset", ">to offset", ">records", *(_FATES if settled else ()))
    rows = [
        (f"{one.topic}-{one.partition}", *map(_count, (one.begin, one.end, one.records)), *(_fates([one.sums]) if settled else ()))
        for one in found.partitions[:PARTITIONS_MAX]
    ]
    total = ("all", "", "", _count(found.records), *(_fates([one.sums for one in found.partitions]) if settled else ()))
    yield _table(heads, [*rows, total])
    told = [
        (f"{of.topic}-{of.partition} @ {one.offset}", f"{of.topic}-{one.by_partition} @ {one.by_offset}")
        for of in found.partitions[:PARTITIONS_MAX]
        for one in (of.sums.superseded_by if of.sums else ())
    ]
    if told:
        yield _table(("superseded, the first of each partition", "by"), told)
    if len(found.partitions) > PARTITIONS_MAX:
        yield element("p", f"and {len(found.partitions) - PARTITIONS_MAX} partitions more; the JSON has them all", class_="soft")


def _fates(sums: Iterable[Sums | None]) -> tuple[str, ...]:
    """Return re-emitted, superseded, quarantined and unexplained, added up."""
    known = [one for one in sums if one]
    return tuple(f"{sum(getattr(one, name) for one in known):,}" for name in ("emitted", "superseded", "quarantined", "unexplained"))


def _left(found: Divergence) -> str:
    if isinstance(found.records, Known):
        return f"{found.records.value:,} records in {found.region} that the other region will not get by replication."
    return f"Not known yet: {found.records.detail}."


def _count(reading: Reading[int]) -> str:
    return f"{reading.value:,}" if isinstance(reading, Known) else "unknown"


def _findings(report: Report) -> Iterable[Markup]:
    yield element("h2", "Findings when it was begun")
    if isinstance(report.findings, Unknown):
        yield element("p", f"Unknown: {report.findings.detail}.", class_="soft")
        return
    if not report.findings.value:
        yield element("p", "None.", class_="soft")
        return
    yield _table(("finding", "severity", "what", "where"), [(f.code, f.severity, f.message, f.where) for f in report.findings.value])
    if report.findings_left_out:
        yield element("p", f"and {report.findings_left_out} more", class_="soft")


# ---------------------------------------------------------------- words


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table; a head that begins with ``>`` stands to the right, as its column does."""
    right = ["right" if head.startswith(">") else "left" for head in heads]
    head = element("tr", *(element("th", head.removeprefix(">"), class_=side) for head, side in zip(heads, right, strict=True)))
    body = [element("tr", *(element("td", cell, class_=side) for cell, side in zip(row, right, strict=True))) for row in rows]
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="wide")


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _time(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{at_ms} ms"
