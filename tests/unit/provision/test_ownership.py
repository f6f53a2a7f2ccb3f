from __future__ import annotations

import msgspec
import pytest

from modelmq.errors import ProvisionError
from modelmq.provision.ownership import owned_by, parameter_name, read, records, still_there, together, without, written
from modelmq.provision.plan_values import BindingKey, Observed, Owned, Removal
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

TOPOLOGY = build(TopologySettings(), "ml-dev", [ModelRoute("digits")])
OWNED = owned_by(TOPOLOGY)
FORMER = Owned(queues=frozenset({"old"}), bindings=frozenset({BindingKey("x", "old", "key", "{}")}))
EMPTY = Observed((3, 10, 8), "admin")


def test_a_topology_owns_what_it_names() -> None:
    assert "ml-gateway" in OWNED.users
    assert "ml-bulk" in OWNED.policies
    assert "ml-model-exchange" in OWNED.exchanges
    assert "ml-model.digits.bulk" in OWNED.queues
    assert BindingKey("ml-model-exchange", "ml-model.digits.bulk", "digits.bulk", "{}") in OWNED.bindings


def test_sets_of_names() -> None:
    both = together(OWNED, FORMER)
    assert without(both, OWNED) == FORMER
    assert without(both, FORMER) == OWNED
    assert still_there(both, EMPTY) == Owned()


def test_a_record_is_read_as_it_was_written() -> None:
    value = msgspec.json.decode(msgspec.json.encode(written(together(OWNED, FORMER))))
    assert read(value, "ml-dev") == together(OWNED, FORMER)
    assert written(together(FORMER, OWNED)) == written(together(OWNED, FORMER))
    assert parameter_name("ml-dev") == "modelmq-owned-ml-dev"
    longest = {parameter_name("v" * 249 + end) for end in "ab"}
    assert len(longest) == 2
    assert max(map(len, longest)) <= 255


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, {"format": 2}, {"format": 1, "queues": 3}])
def test_a_record_that_is_none(value: object) -> None:
    with pytest.raises(ProvisionError, match=r"clear_global_parameter modelmq-owned-ml-dev"):
        read(value, "ml-dev")


def test_what_is_written_when() -> None:
    nothing: tuple[Removal, ...] = ()
    # Nothing was recorded: only whoever writes anything records.
    assert records(TOPOLOGY, EMPTY, nothing, writes=False) == (None, None)
    assert records(TOPOLOGY, EMPTY, nothing, writes=True) == (OWNED, None)
    same = msgspec.structs.replace(EMPTY, recorded=OWNED)
    assert records(TOPOLOGY, same, nothing, writes=True) == (None, None)
    # What a former one owned stays on record as long as it is there.
    gone = msgspec.structs.replace(EMPTY, recorded=FORMER)
    assert records(TOPOLOGY, gone, nothing, writes=True) == (together(OWNED, FORMER), OWNED)
    assert records(TOPOLOGY, gone, nothing, writes=False) == (None, OWNED)
