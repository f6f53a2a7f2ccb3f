"""Names of users over the generations, and topologies that hold one or two of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmq.errors import ConfigError
from modelmq.generations import account_of, generation_of, next_user, service_key, user_of
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute, user_name
from modelmq.topology_values import Topology

ACCOUNTS = st.builds(
    user_name,
    st.sampled_from(["gateway", "worker", "client", "operator"]),
    st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
)
NUMBERS = st.integers(1, 1_000_000)
KEYS = ("gateway", "client", "operator", "worker_default")


def built(**generations: tuple[int, ...]) -> Topology:
    return build(TopologySettings(generations=generations), "ml-dev", [ModelRoute("m", ("1",))])


@given(ACCOUNTS, NUMBERS)
def test_a_users_name_tells_account_and_number(account: str, number: int) -> None:
    user = user_of(account, number)
    assert (account_of(user), generation_of(user)) == (account, number)
    assert next_user(user) == user_of(account, number + 1)
    assert (user == account) == (number == 1)


@given(ACCOUNTS, ACCOUNTS, NUMBERS, NUMBERS)
def test_no_two_accounts_share_a_user(one: str, other: str, first: int, second: int) -> None:
    assert (user_of(one, first) == user_of(other, second)) == ((one, first) == (other, second))


@given(
    st.dictionaries(
        st.sampled_from(KEYS), st.lists(NUMBERS, min_size=1, max_size=2, unique=True).map(tuple), max_size=4
    )
)
def test_each_generation_has_the_rights_of_its_account_and_nothing_else_changes(
    generations: dict[str, tuple[int, ...]],
) -> None:
    plain, made = built(), built(**generations)
    rights = {each.user: (each.configure, each.write, each.read) for each in plain.permissions}
    assert {each.user: (each.configure, each.write, each.read) for each in made.permissions} == {
        user_of(user.name, number): rights[user.name]
        for user in plain.users
        for number in generations.get(service_key(user.service, user.role), (1,))
    }
    assert len(made.users) == len(made.permissions) == len({user.name for user in made.users})
    assert {(user.service, user.role, user.tags) for user in made.users} == {
        (user.service, user.role, user.tags) for user in plain.users
    }
    assert (made.queues, made.bindings, made.policies) == (plain.queues, plain.bindings, plain.policies)


def test_the_last_one_comes_last() -> None:
    assert [user.name for user in built(gateway=(1, 2)).users][:2] == ["ml-gateway", "ml-gateway~2"]


def test_a_service_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match=r'no service "gatway"; there are gateway, client, operator, worker_default'):
        built(gatway=(1, 2))
