"""The protocol's thirteen element types and the numpy types they are computed with.

Both codecs and all runtimes take the mapping from here. BYTES is an object array whose elements are `bytes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modelmq.errors import InvalidRequest, Unsupported

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

_BY_KIND = {(dtype.kind, dtype.itemsize): name for name, dtype in DTYPES.items() if name != "BYTES"}
_TEXT_KINDS = "OSU"


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The numpy type of a protocol datatype. Raises InvalidRequest for a word the protocol does not have."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidRequest(f'"{datatype[:40]}" is not a datatype; the datatypes are {", ".join(DTYPES)}.')
    return dtype


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name for a numpy type, whatever its byte order; strings and objects are BYTES.

    Raises Unsupported for a type the protocol cannot carry, such as a complex number or a date.
    """
    if dtype.kind in _TEXT_KINDS:
        return "BYTES"
    name = _BY_KIND.get((dtype.kind, dtype.itemsize))
    if name is None:
        raise Unsupported(
            f"The protocol has no datatype for numpy's {dtype}; convert it to one of {', '.join(DTYPES)}."
        )
    return name
