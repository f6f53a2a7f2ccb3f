"""One page that tells a run: the verdict, the figures, and a picture of load, faults, latency and outcomes. Pure."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

import msgspec

from tests.chaos.account import Struck
from tests.chaos.checker import Verdict
from tests.chaos.timeline import Second

WIDTH, LEFT, RIGHT = 1400, 130, 16
_COLOURS = {
    "ok": "#2f9e63", "expired": "#e0a100", "unavailable": "#d9622b", "overloaded": "#b98bd1", "unknown": "#c2255c",
    "dead": "#5c3d99", "failed": "#7a7a7a", "withdrawn": "#b8c4cc", "none": "#000000", "other": "#444444",
}  # fmt: skip
_FAMILY = {
    "worker": "#3b6fb6", "child": "#5b9bd5", "gateway": "#1b9e9e", "broker": "#c2255c", "link": "#e08a1e",
    "memory": "#8c564b", "disk": "#8c564b", "replies": "#7a5cc2", "node": "#a61e4d", "partition": "#a61e4d",
}  # fmt: skip


class Facts(msgspec.Struct, frozen=True):
    """What the page tells beside the verdict."""

    seed: int
    command: str
    """How to have the same run again."""
    versions: dict[str, str]
    offered: str
    duration_s: float
    counted: Sequence[Struck]
    """Faults that struck."""
    in_flight: Sequence[int]
    """At each of these, by the ledgers."""
    latency_s: dict[str, float]
    recoveries: Sequence[tuple[str, str, str, bool]] = ()
    """Figure, measured, target, kept."""
    mutations: Sequence[tuple[str, str, bool]] = ()
    """Mutation, what the checker found, whether it found something."""


def page(facts: Facts, verdict: Verdict, faults: Sequence[Struck], bins: Sequence[Second]) -> str:
    """HTML without anything from outside."""
    good = not verdict.violations
    title = "No promise was broken" if good else f"{len(verdict.violations)} promises were broken"
    colour = _COLOURS["ok"] if good else _COLOURS["unknown"]
    parts = [
        f"<h1><span style='color:{colour}'>{title}</span></h1>",
        f"<p class='lead'>{verdict.accepted:,} accepted requests, {len(facts.counted)} faults that struck, "
        f"{sum(each.kind == 'lost' for each in verdict.violations)} lost, in {facts.duration_s:,.0f} s.</p>",
        _picture(faults, bins),
        "<div class='columns'>",
        _figures(facts, verdict),
        _faults(facts, faults),
        _outcomes(verdict),
        "</div>",
        _recoveries(facts),
        _mutations(facts),
        _violations(verdict),
        _again(facts),
    ]
    return f"<!doctype html><html lang='en'><meta charset='utf-8'><title>ModelMQ chaos: {title}</title>{_STYLE}" + (
        "<body>" + "".join(parts) + "</body></html>\n"
    )


_STYLE = """<style>
body{font:14px/1.45 system-ui,'DejaVu Sans',sans-serif;color:#222;margin:24px auto;max-width:1400px;padding:0 12px}
h1{margin:0;font-size:28px}h2{font-size:16px;margin:18px 0 6px}.lead{font-size:18px;margin:4px 0 14px}
table{border-collapse:collapse}td,th{padding:2px 10px 2px 0;text-align:left;border-bottom:1px solid #e6e6e6}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.columns{display:flex;gap:44px;flex-wrap:wrap}
code{background:#f2f2f2;padding:1px 5px;border-radius:3px}.bad{color:#c2255c;font-weight:600}
.note{max-width:380px;color:#555}
svg text{font:11px system-ui,'DejaVu Sans',sans-serif;fill:#444}
</style>"""


# The picture


class _Axis:
    """Seconds of the run to pixels."""

    def __init__(self, bins: Sequence[Second]) -> None:
        self.start = bins[0].at
        self.width_s = bins[1].at - bins[0].at if len(bins) > 1 else 1.0
        self.length_s = len(bins) * self.width_s
        self._scale = (WIDTH - LEFT - RIGHT) / self.length_s

    def x(self, at: float) -> float:
        return LEFT + min(max(0.0, at - self.start), self.length_s) * self._scale

    def ticks(self) -> list[float]:
        step = next(each for each in (5, 10, 30, 60, 120, 300, 600, 1800) if self.length_s / each <= 16)
        return [self.start + number * step for number in range(int(self.length_s / step) + 1)]


def _picture(faults: Sequence[Struck], bins: Sequence[Second]) -> str:
    axis = _Axis(bins)
    kinds = sorted({fault.kind for fault in faults}, key=lambda kind: list(_FAMILY).index(_family(kind)))
    parts: list[str] = []
    top = 18
    for title, height, draw in (
        ("requests/s", 120, lambda y, h: _load(axis, bins, y, h)),
        ("not answered, /s", 90, lambda y, h: _not_ok(axis, bins, y, h)),
        ("latency", 110, lambda y, h: _latency(axis, bins, y, h)),
    ):
        parts += [f"<text x='0' y='{top + 12}' font-weight='bold'>{title}</text>", _shades(axis, faults, top, height)]
        parts.append(draw(top, height))
        top += height + 24
    parts.append(_lanes(axis, faults, kinds, top))
    top += 16 * len(kinds) + 4
    for at in axis.ticks():
        x = axis.x(at)
        parts.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='18' y2='{top}' stroke='#0002' stroke-dasharray='2 3'/>")
        parts.append(f"<text x='{x:.1f}' y='{top + 14}' text-anchor='middle'>{at - axis.start:.0f} s</text>")
    return f"<svg viewBox='0 0 {WIDTH} {top + 20}' width='100%' role='img'>{''.join(parts)}</svg>"


def _family(kind: str) -> str:
    return kind.partition("-")[0]


def _shades(axis: _Axis, faults: Sequence[Struck], top: float, height: float) -> str:
    return "".join(
        f"<rect x='{axis.x(each.at):.1f}' y='{top}' width='{max(1.0, axis.x(each.until) - axis.x(each.at)):.1f}' "
        f"height='{height}' fill='{_FAMILY[_family(each.kind)]}' opacity='0.10'/>"
        for each in faults
    )


def _line(axis: _Axis, bins: Sequence[Second], y: Callable[[Second], float], colour: str, *, area: float = 0) -> str:
    points = [f"{axis.x(each.at + axis.width_s / 2):.1f},{y(each):.1f}" for each in bins]
    if area:
        ends = f"{axis.x(bins[-1].at):.1f},{area} {axis.x(bins[0].at):.1f},{area}"
        return f"<polygon points='{' '.join(points)} {ends}' fill='{colour}' opacity='0.55'/>"
    return f"<polyline points='{' '.join(points)}' fill='none' stroke='{colour}' stroke-width='1.3'/>"


def _scale(top: float, height: float, largest: float, marks: Sequence[tuple[float, str]]) -> str:
    found = [f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{top + height}' y2='{top + height}' stroke='#999'/>"]
    for part, text in marks:
        y = top + height * (1 - part)
        found.append(f"<line x1='{LEFT - 4}' x2='{LEFT}' y1='{y:.1f}' y2='{y:.1f}' stroke='#999'/>")
        found.append(f"<text x='{LEFT - 7}' y='{y + 4:.1f}' text-anchor='end'>{text}</text>")
    return "".join(found)


def _legend(names: Sequence[tuple[str, str]], top: float) -> str:
    found, x = [], LEFT + 6
    for name, colour in names:
        found.append(f"<rect x='{x}' y='{top - 11}' width='9' height='9' fill='{colour}'/>")
        found.append(f"<text x='{x + 13}' y='{top - 3}'>{name}</text>")
        x += 26 + 7 * len(name)
    return "".join(found)


def _load(axis: _Axis, bins: Sequence[Second], top: float, height: float) -> str:
    largest = max(max(each.asked, each.ok) for each in bins) or 1
    per_s = 1 / axis.width_s

    def y(value: float) -> float:
        return top + height * (1 - value / largest)

    marks = [(part, f"{largest * per_s * part:,.0f}") for part in (0, 0.5, 1)]
    return (
        _line(axis, bins, lambda each: y(each.ok), _COLOURS["ok"], area=top + height)
        + _line(axis, bins, lambda each: y(each.asked), "#333")
        + _scale(top, height, largest, marks)
        + _legend((("asked", "#333"), ("answered", _COLOURS["ok"])), top)
    )


def _not_ok(axis: _Axis, bins: Sequence[Second], top: float, height: float) -> str:
    codes = [code for code in _COLOURS if code not in ("ok", "other") and any(each.outcomes[code] for each in bins)]
    totals = [sum(each.outcomes[code] for code in codes) for each in bins]
    largest = max(totals, default=1) or 1
    found = []
    width = max(1.0, axis.x(axis.start + axis.width_s) - LEFT)
    for each in bins:
        below = 0
        for code in codes:
            count = each.outcomes[code]
            if count:
                low, high = math.sqrt(below / largest), math.sqrt((below + count) / largest)
                found.append(
                    f"<rect x='{axis.x(each.at):.1f}' y='{top + height * (1 - high):.1f}' width='{width:.1f}' "
                    f"height='{height * (high - low):.1f}' fill='{_COLOURS[code]}'/>"
                )
            below += count
    marks = [(math.sqrt(part), f"{largest / axis.width_s * part:,.0f}") for part in (0.1, 0.5, 1)]
    return "".join(found) + _scale(top, height, largest, marks) + _legend([(c, _COLOURS[c]) for c in codes], top)


def _latency(axis: _Axis, bins: Sequence[Second], top: float, height: float) -> str:
    low, high = math.log10(0.001), math.log10(20)

    def y(seconds: float) -> float:
        return top + height * (1 - (math.log10(max(seconds, 0.001)) - low) / (high - low))

    marks = [
        ((math.log10(value) - low) / (high - low), text)
        for value, text in ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "0.1 s"), (1, "1 s"), (10, "10 s"))
    ]
    answered = [list(run) for some, run in groupby(bins, lambda each: each.p50_s > 0) if some]
    return (
        "".join(_line(axis, run, lambda each: y(each.p99_s), "#c2255c") for run in answered)
        + "".join(_line(axis, run, lambda each: y(each.p50_s), "#3b6fb6") for run in answered)
        + _scale(top, height, 1, marks)
        + _legend((("p50", "#3b6fb6"), ("p99", "#c2255c")), top)
    )


def _lanes(axis: _Axis, faults: Sequence[Struck], kinds: Sequence[str], top: float) -> str:
    found = []
    for row, kind in enumerate(kinds):
        y = top + 16 * row
        found.append(f"<text x='{LEFT - 7}' y='{y + 10}' text-anchor='end'>{html.escape(kind)}</text>")
        found.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y + 6}' y2='{y + 6}' stroke='#0001'/>")
        for each in faults:
            if each.kind == kind:
                width = max(3.0, axis.x(each.until) - axis.x(each.at))
                said = html.escape(f"{each.number} {each.victim} {each.lost}", quote=True)
                found.append(
                    f"<rect x='{axis.x(each.at):.1f}' y='{y + 1}' width='{width:.1f}' height='10' rx='2' "
                    f"fill='{_FAMILY[_family(kind)]}'><title>{said}</title></rect>"
                )
    return "".join(found)


# The tables


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if number else ''}>{cell}</{tag}>" for number, cell in enumerate(row))

    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells(head, 'th')}</tr>{lines}</table>"


def _figures(facts: Facts, verdict: Verdict) -> str:
    found = Counter(each.kind for each in verdict.violations)
    least = min(facts.in_flight, default=0)
    rows = [
        ("asked", f"{verdict.asked:,}", ""),
        ("accepted", f"{verdict.accepted:,}", "500,000"),
        ("faults that struck", f"{len(facts.counted)}", "200"),
        ("fewest of a kind", f"{min(Counter(each.kind for each in facts.counted).values(), default=0)}", "10"),
        ("fewest in flight at one", f"{least}", "32"),
        ("lost", f"{found['lost'] + found['no outcome']}", "0"),
        ("cross-talk", f"{found['cross-talk'] + found['stray']}", "0"),
        ("duplicate visible outcomes", f"{found['two outcomes']}", "0"),
        ("innocent dead letters", f"{found['innocent dead letter']}", "0"),
        ("other violations", f"{len(verdict.violations) - sum(found[each] for each in _NAMED)}", "0"),
        ("replies a plain AMQP caller saw again", f"{verdict.seen_twice:,}", "allowed"),
        ("silent consumers a plain AMQP caller gave up", f"{verdict.given_up}", "0 on one node"),
        ("dead letters, of them second copies", f"{verdict.letters}, {verdict.letters_twice}", "all poison"),
        ("cleared away by the broker", f"{verdict.expired_in_broker}", ""),
        *((f"latency of successes, {name}", f"{value * 1000:,.1f} ms", "") for name, value in facts.latency_s.items()),
    ]
    note = f"<p class='note'>{html.escape(facts.offered)}</p>"
    return f"<div><h2>Figures</h2>{_table(('', 'measured', 'target'), rows)}{note}</div>"


_NAMED = ("lost", "no outcome", "cross-talk", "stray", "two outcomes", "innocent dead letter")


def _faults(facts: Facts, faults: Sequence[Struck]) -> str:
    struck = Counter(each.kind for each in facts.counted)
    carried = Counter(each.kind for each in faults)
    least = {
        kind: min((n for each, n in zip(facts.counted, facts.in_flight, strict=True) if each.kind == kind), default=0)
        for kind in carried
    }
    rows = [
        (kind, str(struck[kind]), str(carried[kind]), str(least[kind]), _evidence(kind, facts.counted))
        for kind in sorted(carried)
    ]
    return f"<div><h2>Faults</h2>{_table(('kind', 'struck', 'tried', 'least in flight', 'lost'), rows)}</div>"


def _evidence(kind: str, counted: Sequence[Struck]) -> str:
    total: Counter[str] = Counter()
    for each in counted:
        if each.kind == kind:
            for what, count in each.lost.items():
                total[what.partition(" of ")[0]] += count
    return ", ".join(f"{count:,} {what}" for what, count in total.most_common())


def _outcomes(verdict: Verdict) -> str:
    kinds = list(verdict.codes)
    codes = sorted(
        {code for counts in verdict.codes.values() for code in counts}, key=lambda code: (code != "ok", code)
    )
    rows = [(html.escape(code), *(f"{verdict.codes[kind][code]:,}" for kind in kinds)) for code in codes]
    return f"<div><h2>Outcomes</h2>{_table(('', *kinds), rows)}</div>"


def _recoveries(facts: Facts) -> str:
    if not facts.recoveries:
        return ""
    rows = [
        (what, measured, target, "yes" if kept else "<span class=bad>no</span>")
        for what, measured, target, kept in facts.recoveries
    ]
    head = ("with one worker, from the fault to 90 % of the successes", "measured", "at most", "kept")
    return f"<h2>Recovery</h2>{_table(head, rows)}"


def _mutations(facts: Facts) -> str:
    if not facts.mutations:
        return ""
    rows = [
        (html.escape(name), html.escape(said), "yes" if found else "<span class=bad>no</span>")
        for name, said, found in facts.mutations
    ]
    head = ("with this promise broken on purpose", "the checker says", "found")
    return f"<h2>Mutations</h2>{_table(head, rows)}"


def _violations(verdict: Verdict) -> str:
    if not verdict.violations:
        return ""
    rows = [(html.escape(each.kind), html.escape(each.id), html.escape(each.said)) for each in verdict.violations[:200]]
    return f"<h2 class=bad>Violations</h2>{_table(('kind', 'request', 'what'), rows)}"


def _again(facts: Facts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return (
        f"<h2>Again</h2><p>Seed {facts.seed}: <code>{html.escape(facts.command)}</code> strikes the same victims with "
        f"the same faults in the same order.</p><p>{html.escape(versions)}</p>"
        "<p>Outside the promise: disks that lose what was written to them, and a majority of a queue's members lost "
        "for good.</p>"
    )
