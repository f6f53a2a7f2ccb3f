"""MLServer's side of the comparison: an ONNX model as a small MLServer runtime, written to be quick.

Runs in MLServer's own environment, never beside ModelMQ. Answers carry no per-output parameters, because MLServer
then skips their splitting, and numpy is used directly instead of MLServer's slower codecs.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

DTYPES = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT32": np.int32}
DATATYPES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings.parameters.extra["threads"]
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {
            tensor.name: np.array(tensor.data.root, DTYPES[tensor.datatype]).reshape(tensor.shape)
            for tensor in payload.inputs
        }
        arrays = self._session.run(None, feeds)
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                ResponseOutput(
                    name=name,
                    shape=list(array.shape),
                    datatype=DATATYPES[array.dtype],
                    data=array.ravel().tolist(),
                )
                for name, array in zip(self._names, arrays, strict=True)
            ],
        )
