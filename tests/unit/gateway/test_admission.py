from __future__ import annotations

import pytest

from modelmq.errors import InvalidRequest, Overloaded, Unavailable
from modelmq.gateway.admission import Rules, admit, in_time, rules_of, timeout_s
from modelmq.settings import GatewaySettings, Settings, TopologySettings

RULES = Rules(max_in_flight=2, default_timeout_s=60.0, max_timeout_s=600.0)


def test_the_rules_are_those_of_the_settings() -> None:
    settings = Settings(
        gateway=GatewaySettings(max_in_flight=5, default_timeout_s=7.0), topology=TopologySettings(message_ttl_s=8.0)
    )
    assert rules_of(settings) == Rules(5, 7.0, 8.0)


def test_full_is_told_before_anything_else() -> None:
    admit(1, 1, None, RULES)
    with pytest.raises(Overloaded, match="2 requests") as caught:
        admit(2, 0, "It is closed.", RULES)
    assert caught.value.retry_after_s
    with pytest.raises(Unavailable, match=r"^It is closed\.$") as refused:
        admit(0, 0, "It is closed.", RULES)
    assert refused.value.retry_after_s


def test_one_model_leaves_places_for_others() -> None:
    rules = Rules(max_in_flight=90, default_timeout_s=60.0, max_timeout_s=600.0)
    admit(79, 79, None, rules)
    with pytest.raises(Overloaded, match="kept for others") as caught:
        admit(80, 80, None, rules)
    assert caught.value.retry_after_s
    admit(80, 0, None, rules)  # another one has them
    admit(89, 7, None, rules)
    with pytest.raises(Overloaded):
        admit(89, 8, None, rules)


@pytest.mark.parametrize(
    ("predicted_s", "left_s", "retry_after_s"),
    [
        (0.61, 1.0, 1),
        (1.0, 0.1, 1),
        (5.0, 1.0, 5),
        (5.0, 2.0, 4),
        (9.0, 10.0, 1),
        (1e9, 1.0, 60),
        (float("inf"), 1.0, 60),
    ],
)
def test_who_would_wait_in_vain_is_told_when_to_come_again(
    predicted_s: float, left_s: float, retry_after_s: int
) -> None:
    with pytest.raises(Overloaded, match="Model m would take about") as caught:
        in_time("m", predicted_s, left_s)
    assert caught.value.retry_after_s == retry_after_s


def test_who_will_be_answered_in_time_is_let_in() -> None:
    in_time("m", 0.0, 0.001)
    in_time("m", 0.59, 1.0)
    in_time("m", 0.05, 0.1)
    in_time("m", 48.0, 60.0)


@pytest.mark.parametrize(
    ("parameters", "header", "seconds"),
    [
        ({}, None, 60.0),
        ({"timeout": 2_500_000}, None, 2.5),
        ({"timeout": 0}, None, 60.0),
        ({}, b"1500", 1.5),
        ({}, b"0", 60.0),
        ({"timeout": 2_000_000}, b"1500", 1.5),
        ({"timeout": 1_000_000}, b"1500", 1.0),
        ({"timeout": 0}, b"1500", 1.5),
        ({"timeout": 10**30}, None, 600.0),
        ({}, b"999999999999999", 600.0),
        ({"priority": 1}, None, 60.0),
    ],
)
def test_how_long_a_caller_waits(parameters: dict[str, object], header: bytes | None, seconds: float) -> None:
    assert timeout_s(parameters, header, None, RULES) == seconds


def test_who_names_no_time_waits_as_long_as_the_model_says() -> None:
    assert timeout_s({}, None, 5.0, RULES) == 5.0
    assert timeout_s({"timeout": 0}, b"0", 90.0, RULES) == 90.0
    assert timeout_s({}, None, 86_400.0, RULES) == 600.0
    assert timeout_s({"timeout": 7_000_000}, None, 5.0, RULES) == 7.0
    assert timeout_s({}, b"1500", 5.0, RULES) == 1.5


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, None])
def test_a_parameter_that_is_no_time(value: object) -> None:
    with pytest.raises(InvalidRequest, match="microseconds"):
        timeout_s({"timeout": value}, None, None, RULES)


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1s", b" 1", b"9" * 16, "٣".encode()])
def test_a_header_that_is_no_time(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="milliseconds"):
        timeout_s({}, value, None, RULES)
