"""Creates and repairs what ModelMQ needs on a broker: a pure plan, and shells that look and carry it out."""

from __future__ import annotations

from modelmq.provision.apply import ApplyReport, apply, provision
from modelmq.provision.plan import plan
from modelmq.provision.plan_values import Allowed, Change, Kept, Plan, Refusal, Removal, Stray

__all__ = [
    "Allowed",
    "ApplyReport",
    "Change",
    "Kept",
    "Plan",
    "Refusal",
    "Removal",
    "Stray",
    "apply",
    "plan",
    "provision",
]
