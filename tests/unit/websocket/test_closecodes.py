"""The table of close codes: whole, and true to RFC 6455."""

import pytest

from gpulse.websocket import closecodes
from gpulse.websocket.closecodes import CODES, comes_back, may_be_received, may_be_sent


def test_each_row_has_a_constant_of_its_name_and_each_constant_a_row():
    constants = {
        name.lower(): value
        for name, value in vars(closecodes).items()
        if name.isupper() and isinstance(value, int)
    }
    assert {row.name: row.code for row in CODES} == constants


def test_rows_stand_in_the_order_of_their_codes_and_end_without_a_stop():
    codes = [row.code for row in CODES]
    assert codes == sorted(set(codes))
    assert all(row.meaning[0].isupper() and not row.meaning.endswith(".") for row in CODES)


@pytest.mark.parametrize(
    ("codes", "sent", "received"),
    [
        ((0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535), False, False),
        ((1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014), True, True),
        ((1002, 1010), False, True),
        ((3000, 3999, 4000, 4401, 4999), True, True),
    ],
)
def test_which_codes_may_travel(codes, sent, received):
    assert {may_be_sent(code) for code in codes} == {sent}
    assert {may_be_received(code) for code in codes} == {received}


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (1000, "no"),
        (1001, "now"),
        (1006, "now"),
        (1008, "no"),
        (1011, "later"),
        (1012, "now"),
        (1013, "later"),
        (4400, "no"),
        (4401, "no"),
        (4403, "no"),
        (4408, "later"),
        (4409, "no"),
        (4429, "later"),
        (4567, "no"),  # an application's own
        (3000, "no"),
        (1099, "later"),  # nobody's yet
    ],
)
def test_whether_a_client_comes_back(code, verdict):
    assert comes_back(code) == verdict
