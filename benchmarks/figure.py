"""What a figure gives: values for the report, and the lines a person reads.

A figure module measures and returns these; `run` prints them and writes them as JSON. Pure: formatting only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.ratios import Spread, Target, paired_ratios, spread


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against a rival, one value each per round, in the same unit; the ratio is ours over the rival's."""

    title: str
    unit: str
    ours: tuple[float, ...]
    rival_name: str
    rival: tuple[float, ...]
    target: Target
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> Spread:
        """Spread of the ratios of the rounds."""
        return spread(paired_ratios(self.ours, self.rival))

    @property
    def met(self) -> bool:
        """Whether the median ratio meets the target."""
        return self.target.met_by(self.ratio.median)

    def lines(self) -> list[str]:
        """The ratio first, then what it was made from."""
        ratio = self.ratio
        verdict = "met" if self.met else "NOT MET"
        return [
            f"{self.title}: {ratio.median:.2f} x {self.rival_name} "
            f"(rounds {ratio.low:.2f} to {ratio.high:.2f}; target {self.target}: {verdict})",
            f"    ModelMQ {_span(self.ours)} {self.unit}, {self.rival_name} {_span(self.rival)} {self.unit}, "
            f"{len(self.ours)} rounds by turns",
            *(f"    {note}" for note in self.notes),
        ]

    def as_json(self) -> dict[str, object]:
        """Everything measured and the ratios made from it."""
        return {
            "title": self.title,
            "unit": self.unit,
            "ours": self.ours,
            "rival": {"name": self.rival_name, "values": self.rival},
            "ratio": {"median": self.ratio.median, "min": self.ratio.low, "max": self.ratio.high},
            "target": str(self.target),
            "met": self.met,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True)
class Amount:
    """One measured amount against a bound."""

    title: str
    unit: str
    value: float
    target: Target
    notes: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the value meets the target."""
        return self.target.met_by(self.value)

    def lines(self) -> list[str]:
        """The value and its target, then the notes."""
        verdict = "met" if self.met else "NOT MET"
        return [
            f"{self.title}: {self.value:.1f} {self.unit} (target {self.target} {self.unit}: {verdict})",
            *(f"    {note}" for note in self.notes),
        ]

    def as_json(self) -> dict[str, object]:
        """The value and its target."""
        return {
            "title": self.title,
            "unit": self.unit,
            "value": self.value,
            "target": str(self.target),
            "met": self.met,
            "notes": self.notes,
        }


Result = Comparison | Amount


def _span(values: Sequence[float]) -> str:
    s = spread(values)
    digits = 0 if s.median >= 100 else 2
    return f"{s.median:,.{digits}f} ({s.low:,.{digits}f} to {s.high:,.{digits}f})"
