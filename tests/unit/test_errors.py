from __future__ import annotations

import inspect

import pytest

from modelmq import errors


def error_classes() -> list[type[errors.ModelMQError]]:
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ModelMQError)]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    for error in error_classes():
        assert f" {error.__name__} " in f" {errors.__doc__} ".replace("\n", " "), error


def test_codes_are_stable_and_distinct() -> None:
    codes = "cancelled dead expired failed invalid not_found overloaded too_large unavailable unsupported"
    assert sorted(errors.REQUEST_ERRORS) == codes.split()
    leaves = [c for c in error_classes() if not c.__subclasses__()]
    assert len({c.code for c in leaves}) == len(leaves)


@pytest.mark.parametrize("code", sorted(errors.REQUEST_ERRORS))
def test_a_status_header_becomes_its_error(code: str) -> None:
    error = errors.request_error(code, "Because.")
    assert type(error) is errors.REQUEST_ERRORS[code]
    assert error.code == code
    assert str(error) == "Because."


def test_an_unknown_status_is_a_failure_of_the_other_side() -> None:
    assert type(errors.request_error("surprise", "x")) is errors.ModelFailed
