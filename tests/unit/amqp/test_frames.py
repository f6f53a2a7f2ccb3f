from __future__ import annotations

import pytest
from pamqp import commands, frame

from modelmq.amqp import frames

OVERHEAD = frames.OVERHEAD


def kinds_and_sizes(data: bytes) -> list[tuple[int, int]]:
    """Of each frame; every one must be whole."""
    found, at = [], 0
    while at < len(data):
        kind, channel, size = frames.HEAD.unpack_from(data, at)
        assert channel == 3
        assert data[at + 7 + size] == frames.FRAME_END
        found.append((kind, size))
        at += size + OVERHEAD
    return found


@pytest.mark.parametrize(
    ("size", "bodies"),
    [(0, []), (1, [1]), (91, [91]), (92, [92]), (93, [92, 1]), (184, [92, 92]), (185, [92, 92, 1]), (276, [92] * 3)],
)
def test_a_body_is_split_at_the_largest_frame(size: int, bodies: list[int]) -> None:
    data = frames.content(3, b"\0\0", b"x" * size, frame_max=100)
    header, *rest = kinds_and_sizes(data)
    assert header == (frames.HEADER, 14)
    assert rest == [(frames.BODY, body) for body in bodies]


def test_the_pieces_are_the_body() -> None:
    body = bytes(range(256)) * 4
    data = frames.content(3, b"\0\0", body, frame_max=100)[14 + OVERHEAD :]
    pieces = b""
    while data:
        _, _, size = frames.HEAD.unpack_from(data)
        pieces += data[7 : 7 + size]
        data = data[size + OVERHEAD :]
    assert pieces == body


def test_properties_larger_than_a_frame_are_refused() -> None:
    frames.content(3, b"x" * 80, b"", frame_max=100)
    with pytest.raises(ValueError, match="have 93 bytes"):
        frames.content(3, b"x" * 81, b"", frame_max=100)


@pytest.mark.parametrize(("exchange", "key"), [("x" * 256, ""), ("", "ü" * 128)])
def test_names_longer_than_amqp_takes_are_refused(exchange: str, key: str) -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        frames.publish_method(1, exchange, key, True)


def test_the_longest_names_are_taken() -> None:
    data = frames.publish_method(1, "x" * 255, "k" * 255, True)
    method = frame.unmarshal(data)[2]
    assert (method.exchange, method.routing_key, method.mandatory) == ("x" * 255, "k" * 255, True)


def test_the_heartbeat_is_pamqps() -> None:
    consumed, channel, beat = frame.unmarshal(frames.heartbeat())
    assert (consumed, channel, beat.name) == (8, 0, "Heartbeat")


def test_only_methods_are_methods() -> None:
    assert isinstance(frames.decode_method(frames.encode_method(commands.Channel.OpenOk(), 1)), commands.Channel.OpenOk)
    with pytest.raises(TypeError):
        frames.decode_method(frames.heartbeat())


def test_what_is_remembered_is_bounded() -> None:
    for n in range(10_000):
        frames.publish_method(1, "x", f"key-{n}", False)
    info = frames.publish_method.cache_info()
    assert info.maxsize is not None
    assert info.currsize <= info.maxsize <= 10_000
