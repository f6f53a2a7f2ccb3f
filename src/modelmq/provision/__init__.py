"""Creates and repairs what ModelMQ needs on a broker: a pure plan, and a shell that carries it out."""

from __future__ import annotations

from modelmq.provision.apply import ApplyReport, apply, provision
from modelmq.provision.plan import Change, Plan, Refusal

__all__ = ["ApplyReport", "Change", "Plan", "Refusal", "apply", "provision"]
