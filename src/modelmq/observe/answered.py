"""How many requests were answered and how long that took: plain numbers, which become metrics when they are read.

A collector of prometheus_client, whose own counters take a lock at each step: for every request that is a tenth of what
Python does for it. Counted and read by one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class _Times:
    """Of one model."""

    __slots__ = ("counts", "sum_s")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum_s = 0.0


class Series:
    """The requests of one model, version and code."""

    __slots__ = ("_bounds_s", "_times", "count")

    def __init__(self, times: _Times, bounds_s: tuple[float, ...]) -> None:
        self.count = 0
        self._times = times
        self._bounds_s = bounds_s

    def add(self, duration_s: float) -> None:
        """One more."""
        self.count += 1
        times = self._times
        times.counts[bisect_left(self._bounds_s, duration_s)] += 1
        times.sum_s += duration_s


class Answered(Collector):
    """All of them. `bounds_s` are the upper bounds of the histogram's buckets, ascending."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._names = [*map(floatToGoString, bounds_s), "+Inf"]
        self._series: dict[tuple[str, str, str], Series] = {}
        self._times: dict[str, _Times] = {}

    def get(self, labels: tuple[str, str, str]) -> Series | None:
        """The one with this model, version and code as labels, if there is one."""
        return self._series.get(labels)

    def series(self, model: str, version: str, code: str) -> Series:
        """The same; made where there is none."""
        key = model, version, code
        found = self._series.get(key)
        if found is None:
            times = self._times.setdefault(model, _Times(len(self._names)))
            found = self._series[key] = Series(times, self._bounds_s)
        return found

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for them."""
        meaning = "Requests answered by the gateway."
        requests = CounterMetricFamily("modelmq_requests", meaning, labels=("model", "version", "code"))
        for labels, series in self._series.items():
            requests.add_metric(labels, series.count)
        yield requests
        name, meaning = "modelmq_request_duration_seconds", "Arrival to answer, gateway."
        durations = HistogramMetricFamily(name, meaning, labels=("model",))
        for model, times in self._times.items():
            buckets = list(zip(self._names, accumulate(times.counts), strict=True))
            durations.add_metric((model,), buckets, times.sum_s)
        yield durations
