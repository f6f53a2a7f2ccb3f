"""Runs ONNX files with onnxruntime on the CPU; names, types, shapes and the batch axis come from the file."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnxruntime

from modelmq.errors import ModelLoadError
from modelmq.metadata import VARIABLE, Signature, TensorSpec
from modelmq.runtimes.runtime import Array, ModelSource, Runtime
from modelmq.runtimes.signatures import batch_axis, overridden, warm_up_inputs

PLATFORM = "onnxruntime_onnx"

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_PROBE_ROWS = 2


class OnnxRuntime:
    """One inference session."""

    def __init__(self, session: Any, signature: Signature) -> None:
        self.signature = signature
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._texts = frozenset(spec.name for spec in signature.inputs if spec.datatype == "BYTES")

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """All outputs of the graph by name."""
        if self._texts:
            inputs = {name: _text(array) if name in self._texts else array for name, array in inputs.items()}
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def close(self) -> None:
        """Drops the session."""
        self._session = None


def open_onnx(source: ModelSource) -> Runtime:
    """Raises ModelLoadError, or onnxruntime's own errors for a file it cannot read."""
    session: Any = onnxruntime.InferenceSession(
        str(source.path), sess_options=_options(source.settings.threads), providers=["CPUExecutionProvider"]
    )
    inputs = overridden(_specs(session.get_inputs(), source, "input"), source.settings.inputs, source, "input")
    outputs = overridden(_specs(session.get_outputs(), source, "output"), source.settings.outputs, source, "output")
    batched = source.settings.batched and batch_axis(inputs)
    declared = frozenset(spec.name for spec in source.settings.outputs)
    signature = _probed(session, Signature(PLATFORM, inputs, outputs, batched), declared)
    batched = signature.batched and batch_axis(signature.outputs)
    return OnnxRuntime(session, msgspec.structs.replace(signature, batched=batched))


def _options(threads: int) -> Any:
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed as well
    # The arena and its patterns keep the largest batch ever seen; a worker has many models and batch sizes vary.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Waiting threads that spin would take the processor from the worker's own event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _specs(nodes: Any, source: ModelSource, role: str) -> tuple[TensorSpec, ...]:
    specs = []
    for node in nodes:
        datatype = _DATATYPES.get(node.type)
        if datatype is None:
            advice = ""
            if node.type.startswith(("seq(", "map(")):
                advice = "; export the model with plain tensors (with skl2onnx: options={'zipmap': False})"
            raise ModelLoadError(f'{source.path} has {role} "{node.name}" of {node.type}, not a tensor served{advice}.')
        shape = tuple(size if isinstance(size, int) and size >= 0 else VARIABLE for size in node.shape)
        specs.append(TensorSpec(node.name, datatype, shape))
    return tuple(specs)


def _probed(session: Any, signature: Signature, declared: frozenset[str]) -> Signature:
    """The signature as a run of two rows of zeros confirms it.

    An unknown rank looks like a scalar in the file, and a variable first size need not count rows. Where zeros cannot
    be computed the file is believed, except that an output of unknown rank leaves all outputs undeclared.
    """
    unknown = {spec.name for spec in signature.outputs if not spec.shape} - declared
    try:
        arrays = session.run(None, warm_up_inputs(signature, _PROBE_ROWS))
    except Exception:  # the graph does not like zeros; that is no fault of the model
        return msgspec.structs.replace(signature, outputs=(), batched=False) if unknown else signature
    outputs = tuple(
        TensorSpec(spec.name, spec.datatype, (VARIABLE,) * array.ndim) if spec.name in unknown else spec
        for spec, array in zip(signature.outputs, arrays, strict=True)
    )
    batched = signature.batched and all(array.shape[:1] == (_PROBE_ROWS,) for array in arrays)
    return msgspec.structs.replace(signature, outputs=outputs, batched=batched)


def _text(array: Array) -> Array:
    """onnxruntime takes str; given bytes it would compute with their printed form, quotes and all."""
    texts = np.empty(array.size, np.object_)
    texts[:] = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return texts.reshape(array.shape)
