"""JSON bodies as records, and what is wrong with those that are none, in one sentence. Knows no record."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from modelmq.errors import InvalidRequest

T = TypeVar("T")

_BYTE = re.compile(r"\(byte (\d+)\)\Z")
_AT = re.compile(r" - at `\$\.?([^`]*)`\Z")
_NOT_JSON_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"-inf")


def parse(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises InvalidRequest."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_misplaced(str(error))) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(_malformed(str(error), body)) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body is not valid JSON: a string in it is not UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error


def _malformed(detail: str, body: bytes) -> str:
    place = _BYTE.search(detail)
    if place:
        # The parser points behind the sign of -Infinity.
        at = int(place.group(1))
        if body[at : at + 8].startswith(_NOT_JSON_NUMBERS) or body[max(0, at - 1) : at + 8].startswith(b"-I"):
            return f"The body is not valid JSON: it has no NaN and no Infinity (byte {at})."
    return f"The body is not valid JSON: {detail.removeprefix('JSON is malformed: ')}."


def _misplaced(detail: str) -> str:
    """A sentence from a validation error such as "Expected `str`, got `int` - at `$.inputs[0].name`"."""
    place = _AT.search(detail)
    what = _AT.sub("", detail).replace("`", "").replace(" | ", " or ")
    if place and place.group(1):
        return f"The body is not of the protocol's form: at {place.group(1)}: {what[:1].lower()}{what[1:]}."
    return f"The body is not of the protocol's form: {what[:1].lower()}{what[1:]}."
