"""A stack as text."""

import sys

from gpulse.worker.stack import FRAMES, SOURCE_LINE, format_stack


def inner(secret):
    return format_stack(sys._getframe())


def outer(secret):
    return inner(secret)


def test_the_innermost_call_is_last_and_its_line_is_shown():
    lines = outer("x").splitlines()
    assert lines[-2].endswith("in inner")
    assert lines[-1] == "    return format_stack(sys._getframe())"
    assert lines[-4].endswith("in outer")
    assert lines[-3] == "    return inner(secret)"
    assert lines[-2].startswith(f'  File "{__file__}", line ')


def test_a_method_is_named_with_its_class():
    class View:
        def get(self):
            return inner(0)

    assert "View.get" in View().get()


def test_no_value_is_in_it():
    secret = str(2**40)
    assert secret not in outer(secret)


def test_without_a_frame_there_is_nothing():
    assert format_stack(None) == ""


def test_deep_stacks_lose_their_outer_part():
    def sink(depth):
        return sink(depth - 1) if depth else inner(0)

    lines = sink(FRAMES * 3).splitlines()
    assert sum(line.startswith("  File ") for line in lines) == FRAMES
    assert lines[0].startswith("  ... ")
    assert lines[-2].endswith("in inner")


def test_code_without_a_source_has_no_line():
    made = {"inner": inner}
    exec(compile("def made(): return inner(0)", "<made>", "exec"), made)
    lines = made["made"]().splitlines()
    assert lines[-3] == '  File "<made>", line 1, in made'


def test_a_long_line_is_cut(tmp_path):
    path = tmp_path / "long.py"
    path.write_text(f"def long(): return inner('{'x' * 10_000}')")
    made = {"inner": inner}
    exec(compile(path.read_text(), str(path), "exec"), made)

    assert "x" * SOURCE_LINE not in made["long"]()
