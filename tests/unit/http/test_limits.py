"""The bounds of the HTTP front are those that the options ask for."""

import dataclasses

import pytest

from gpulse.config import Config
from gpulse.http.limits import Limits
from gpulse.options import BY_NAME

NAMES = {
    field.name: field.metadata["option"]
    for field in dataclasses.fields(Limits)
    if "option" in field.metadata
}


def another(name):
    """A value of the option that is not its default."""
    row = BY_NAME[name]
    if row.default is None:
        return "/var/spool"
    return row.check(row.default * 2 if row.default else 1)


def test_without_options_they_are_the_defaults_of_the_table():
    limits = Limits()
    for field, option in NAMES.items():
        assert getattr(limits, field) == BY_NAME[option].default, field
    assert Limits.of(Config.defaults()) == limits


@pytest.mark.parametrize("field", NAMES)
def test_each_takes_the_value_of_its_option_and_of_no_other(field):
    option = NAMES[field]
    limits = Limits.of(Config.defaults(**{option: another(option)}))
    assert getattr(limits, field) == another(option) != BY_NAME[option].default
    assert dataclasses.replace(limits, **{field: BY_NAME[option].default}) == Limits()


def test_no_two_are_of_one_option():
    assert len(set(NAMES.values())) == len(NAMES)


def test_each_option_of_the_limits_of_a_request_is_there():
    named = {name for name, row in BY_NAME.items() if row.group == "Limits of a request"}
    assert named <= set(NAMES.values())


def test_what_is_no_option_has_a_bound_too():
    limits = Limits()
    assert 0 < limits.pipelined <= limits.body
    assert limits.linger > 0
    assert limits.linger_bytes > 0


def test_they_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().body = 5
