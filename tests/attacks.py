"""What a client may send that means an HTTP server ill, by a seed: requests by their grammar, and what is done to them.

Also what an answer must look like, whatever was sent.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import NamedTuple

import msgspec

SANE = {100, 200, 400, 404, 405, 408, 413, 415, 429, 431, 503, 504, 505}
"""Never 500: no model of ours fails here, so that would be the gateway's."""
_WORDS = (b"\0", b"\r", b"\n", b"\r\n", b"\t", b" ", b":", b"\xff", b"%", b"\r\n\r\n", b"\r\n ", b"0\r\n\r\n")
_LINES = (
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 05",
    b"Content-Length: +5",
    b"Content-Length: -5",
    b"Content-Length: 5, 5",
    b"Content-Length: 0x5",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 16000000",
    b"Content-Length : 5",
    b"Content-Length:",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"X-Folded: a\r\n b",
    b"X-Nul: a\0b",
    b"X-Return: a\rContent-Length: 3",
    b"X-Feed: a\nContent-Length: 3",
    b"no colon",
    b": no name",
    b" : space",
    b"X-Long: " + b"x" * 40_000,
    b"\r\n".join(b"X-%d: y" % number for number in range(300)),
    b"Host: other",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"Connection: close",
    b"Connection: keep-alive, upgrade",
    b"Upgrade: h2c",
    b"X-Request-Id: \xff\xfe",
    b"X-Request-Id: " + b"i" * 300,
    b"Inference-Timeout-Ms: -1",
    b"Inference-Timeout-Ms: 1",
    b"Inference-Timeout-Ms: " + b"9" * 400,
    b"Inference-Header-Content-Length: 7",
    b"Content-Encoding: gzip",
    b"Content-Type: text/plain",
    b"Content-Type: application/json; charset=\xff",
    b"traceparent: 00-x",
)
_STARTS = (
    b"GET /v2 HTTP/1.0",
    b"GET /v2 HTTP/2.0",
    b"GET /v2 HTTP/1.1.1",
    b"GET /v2",
    b"GET  /v2  HTTP/1.1",
    b"GET /a b HTTP/1.1",
    b"get /v2 HTTP/1.1",
    b"FETCH /v2 HTTP/1.1",
    b"DELETE /v2/models/m HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"CONNECT other:443 HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"GET /\0 HTTP/1.1",
    b"GET /%00%ff%2f%zz HTTP/1.1",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1",
    b"GET http://other/v2 HTTP/1.1",
    b"GET http://other/metrics HTTP/1.1",
    b"POST /v2/models/%6d/infer HTTP/1.1",
    b"POST /v2/models/nobody/infer HTTP/1.1",
    b"\r\n\r\nGET /v2 HTTP/1.1",
    b"",
)
_CHUNKS = (
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"5;a=b\r\nabcde\r\n0\r\nX-T: 1\r\n\r\n",
    b"+5\r\nabcde\r\n0\r\n\r\n",
    b"0x5\r\nabcde\r\n0\r\n\r\n",
    b"5\nabcde\n0\n\n",
    b"4\r\nabcde\r\n0\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"7fffffffffffffff\r\nabc",
    b"fffffff\r\nabc",
    b"-1\r\n",
    b"\r\n",
    b"0\r\n",
    b"0\r\n\r",
    b"1\r\n{\r\n" * 300,
)


class Attack(NamedTuple):
    """`pieces` are sent one by one; `leaves`: the connection is reset at once, and no answer awaited."""

    pieces: list[bytes]
    leaves: bool
    expected: list[bytes] | None
    """The exact bodies of the answers, where every request was an honest one."""


def attack(chance: Random, model: str = "m") -> Attack:
    """One connection's bytes."""
    kind = chance.random()
    if kind < 0.15:
        asked = [honest(chance, model) for _ in range(chance.randint(1, 6))]
        data, expected = b"".join(sent for sent, _ in asked), [body for _, body in asked]
        return Attack(_cut(chance, data), False, expected)
    requests = [_request(chance, model) for _ in range(chance.choice((1, 1, 1, 2, 5, 80)))]
    data = bytearray(b"".join(requests))
    if kind > 0.6:
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            if chance.random() < 0.5:
                data[at] = chance.randrange(256)
            elif chance.random() < 0.5:
                data[at:at] = chance.choice(_WORDS)
            else:
                del data[at : at + chance.randint(1, 9)]
    if chance.random() < 0.15:
        del data[chance.randrange(len(data) + 1) :]
    return Attack(_cut(chance, bytes(data)), chance.random() < 0.1, None)


def honest(chance: Random, model: str) -> tuple[bytes, bytes]:
    """A request as any client sends it, and the body of its answer."""
    number = float(chance.randrange(1000))
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [number]}
    body = msgspec.json.encode({"inputs": [tensor]})
    doubled = {"name": "y", "datatype": "FP64", "shape": [1], "data": [2 * number]}
    answer = msgspec.json.encode({"model_name": model, "model_version": "1", "outputs": [doubled]})
    head = b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: x\r\n" % model.encode()
    if chance.random() < 0.5:
        return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body), answer
    at = chance.randrange(1, len(body))
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:at], body[at:]))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n", answer


def _request(chance: Random, model: str) -> bytes:
    if chance.random() < 0.3:
        return honest(chance, model)[0]
    start = b"POST /v2/models/%s/infer HTTP/1.1" % model.encode()
    if chance.random() < 0.4:
        start = chance.choice(_STARTS)
    lines = [b"Host: x"] if chance.random() < 0.9 else []
    lines += chance.choices(_LINES, k=chance.randrange(4))
    chance.shuffle(lines)
    end = b"\n" if chance.random() < 0.05 else b"\r\n"
    body = chance.choice((b"", b"hello", b'{"inputs": []}', b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", *_CHUNKS))
    return end.join([start, *lines]) + end * 2 + body


def _cut(chance: Random, data: bytes) -> list[bytes]:
    if chance.random() < 0.5 or len(data) < 2:
        return [data]
    if chance.random() < 0.1:
        return [data[at : at + 1] for at in range(min(len(data), 300))] + [data[300:]]
    places = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(chance.randint(1, 8)))})
    return [data[start:stop] for start, stop in pairwise(places)]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def answers(data: bytes) -> list[Answer]:
    """Everything that a server wrote, to its last byte. Raises ValueError for what is no sequence of whole answers."""
    found = []
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        version, code, _phrase = status.split(b" ", 2)
        if version != b"HTTP/1.1" or not mark or len(code) != 3 or b"\n" in head.replace(b"\r\n", b""):
            raise ValueError(f"{data[:200]!r} does not begin an answer")
        headers = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(": ")
            if not colon or not name or not value.isprintable():
                raise ValueError(f"{line!r} is no header")
            headers[name.lower()] = value
        size = 0 if code == b"100" else int(headers["content-length"])
        if len(rest) < size:
            raise ValueError(f"{size - len(rest)} bytes of a body are missing")
        found.append(Answer(int(code), headers, rest[:size]))
        data = rest[size:]
    return found
