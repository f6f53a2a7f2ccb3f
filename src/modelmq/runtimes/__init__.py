"""What executes a model: ONNX, scikit-learn or a plain Python class, all behind one small protocol.

Finds models in a folder, opens one, says what tensors it takes and gives, and computes. A framework is imported only
when a model needs it. Knows nothing of messages, queues or JSON.
"""

from __future__ import annotations

from modelmq.runtimes.model_settings import ModelSettings
from modelmq.runtimes.opening import open_model
from modelmq.runtimes.outputs import checked_outputs
from modelmq.runtimes.repository import scan
from modelmq.runtimes.runtime import Catalog, ModelSource, Runtime
from modelmq.runtimes.signatures import warm_up_inputs

__all__ = [
    "Catalog",
    "ModelSettings",
    "ModelSource",
    "Runtime",
    "checked_outputs",
    "open_model",
    "scan",
    "warm_up_inputs",
]
