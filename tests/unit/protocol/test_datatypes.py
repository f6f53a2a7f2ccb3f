from __future__ import annotations

import numpy as np
import pytest

from modelmq.errors import InvalidRequest, Unsupported
from modelmq.metadata import DATATYPES
from modelmq.protocol.datatypes import datatype_of, dtype_of


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_of_the_protocol_has_one_numpy_type(datatype: str) -> None:
    assert datatype_of(dtype_of(datatype)) == datatype
    assert datatype_of(dtype_of(datatype).newbyteorder(">")) == datatype


@pytest.mark.parametrize("dtype", ["U3", "S3", "O"])
def test_text_is_bytes(dtype: str) -> None:
    assert datatype_of(np.dtype(dtype)) == "BYTES"


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "m8[s]", "V4"])
def test_what_the_protocol_cannot_carry_is_unsupported(dtype: str) -> None:
    with pytest.raises(Unsupported, match="convert it to one of BOOL"):
        datatype_of(np.dtype(dtype))


@pytest.mark.parametrize("word", ["", "FLOAT32", "fp32", "BF16", "x" * 10_000])
def test_other_words_are_no_datatypes(word: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        dtype_of(word)
    assert "the datatypes are BOOL, UINT8" in caught.value.message
    assert len(caught.value.message) < 250
