"""Demo models trained from data that ships with scikit-learn, each with one real question to ask it.

`python -m modelmq.demo DIR` writes them; importing this package loads no framework, so a supervisor can ask whether
they are there and read the questions. Knows nothing of how they are served.
"""

from __future__ import annotations

from modelmq.demo.folder import MODELS, is_current
from modelmq.demo.samples import Sample, sample

__all__ = ["MODELS", "Sample", "is_current", "sample"]
