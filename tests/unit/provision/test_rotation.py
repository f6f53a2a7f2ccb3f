from __future__ import annotations

from modelmq.broker.management_values import ConnectionInfo
from modelmq.broker.secrets import Secret
from modelmq.provision.rotation import Prepare, Retire, Switch, late, next_step, who

FIRST, SECOND, THIRD = Secret("u", "a"), Secret("u~2", "b"), Secret("u~3", "c")


def test_every_state_of_the_files_has_one_next_step() -> None:
    assert next_step(FIRST, None, None) == Prepare("u~2")
    assert next_step(FIRST, SECOND, None) == Switch(FIRST, SECOND)
    assert next_step(FIRST, SECOND, FIRST) == Switch(FIRST, SECOND)  # interrupted between its two writes
    assert next_step(SECOND, None, FIRST) == Retire(FIRST)
    assert next_step(SECOND, THIRD, FIRST) == Retire(FIRST)  # never three at a time
    assert next_step(SECOND, None, None) == Prepare("u~3")


def test_who_has_not_switched_is_named() -> None:
    connections = [ConnectionInfo(name=f"10.0.0.{n}:1 -> b:5672", user_provided_name=f"host-{n}") for n in range(5)]
    assert who(connections[:1]) == "host-0 (10.0.0.0:1 -> b:5672)"
    assert who(connections).endswith("host-2 (10.0.0.2:1 -> b:5672), and 2 more")
    assert who([ConnectionInfo(name="x")]) == "a client without a name (x)"
    sentence = late("u", connections[:1], 5.0, "state/secrets/u", "modelmq topology rotate gateway")
    assert sentence == (
        "After 5 s u still has 1 connection: host-0 (10.0.0.0:1 -> b:5672); give that service the secret in "
        "state/secrets/u (or restart it, where its secret comes from the environment), then run modelmq topology "
        "rotate gateway again."
    )
