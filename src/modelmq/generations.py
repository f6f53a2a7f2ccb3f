"""Generations of a service's user: while a secret is rotated there are two, with the same rights and other passwords.

The first bears the account's own name, as in `ml-gateway`, later ones a number, as in `ml-gateway~2`; no role and no
environment has a `~`. Pure: names and values in, names and values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from modelmq.errors import ConfigError
from modelmq.topology_values import Permission, User

_MARK = "~"

Generations = Mapping[str, Sequence[int]]
"""By service (`service_key`), those that exist; the last is the one to use. A service not named has the first."""


def user_of(account: str, generation: int) -> str:
    """The user's name."""
    return account if generation == 1 else f"{account}{_MARK}{generation}"


def account_of(user: str) -> str:
    """The inverse, as far as the account goes."""
    return user.partition(_MARK)[0]


def generation_of(user: str) -> int:
    """The inverse, as far as the number goes. What bears no number, or none of ours, is the first."""
    number = user.partition(_MARK)[2]
    return int(number) if number.isascii() and number.isdigit() else 1


def next_user(user: str) -> str:
    """The one that takes over from this one. Numbers never come back, so an old secret never fits a new user."""
    return user_of(account_of(user), generation_of(user) + 1)


def service_key(service: str, role: str = "") -> str:
    """What settings and outputs call a service: `gateway`, `client`, `operator`, `worker_<role>`."""
    return f"{service}_{role}" if role else service


def of_generations(
    users: Sequence[User], permissions: Sequence[Permission], generations: Generations
) -> tuple[tuple[User, ...], tuple[Permission, ...]]:
    """Each user and its rights once for each of its generations. Raises ConfigError for a service there is not."""
    names: dict[str, tuple[str, ...]] = {}
    keys = {service_key(user.service, user.role): user.name for user in users}
    for key, numbers in generations.items():
        if key not in keys:
            raise ConfigError(f'topology.generations: there is no service "{key}"; there are {", ".join(keys)}.')
        names[keys[key]] = tuple(user_of(keys[key], number) for number in dict.fromkeys(numbers))
    return (
        tuple(
            msgspec.structs.replace(user, name=name) for user in users for name in names.get(user.name, (user.name,))
        ),
        tuple(
            msgspec.structs.replace(each, user=name)
            for each in permissions
            for name in names.get(each.user, (each.user,))
        ),
    )
