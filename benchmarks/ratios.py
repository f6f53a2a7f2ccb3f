"""The arithmetic of the figures: ratios of paired rounds, their spread, percentiles, and whether a target is met.

Two sides measured by turns (A B A B ...) share the machine's mood of the moment, so each round gives one ratio and
the rounds give its spread. Pure: knows neither clocks nor what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Goal = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of some values."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that the median is held against."""

    goal: Goal
    bound: float

    def met_by(self, value: float) -> bool:
        """Whether the value is on the right side of the bound; the bound itself is."""
        return value >= self.bound if self.goal == "at least" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.goal} {self.bound:g}"


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value below which this fraction (0 to 1) of the values lies, by linear interpolation between neighbours."""
    if not values:
        raise ValueError("A percentile needs at least one value.")
    if not 0 <= fraction <= 1:
        raise ValueError(f"The fraction {fraction} is not between 0 and 1.")
    ordered = sorted(values)
    place = (len(ordered) - 1) * fraction
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return min(max(low + (high - low) * (place - below), low), high)  # rounding never leaves the neighbours


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest."""
    return Spread(percentile(values, 0.5), min(values), max(values))


def paired_ratios(ours: Sequence[float], rival: Sequence[float]) -> list[float]:
    """One ratio, ours over the rival's, for each round; a rival that did nothing in a round cannot be compared."""
    if len(ours) != len(rival) or not ours:
        raise ValueError(f"Rounds do not pair up: {len(ours)} of ours, {len(rival)} of the rival's.")
    if any(value <= 0 for value in rival):
        raise ValueError("The rival's value of a round is not above zero, so there is no ratio.")
    return [mine / other for mine, other in zip(ours, rival, strict=True)]
