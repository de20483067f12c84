"""Fuzz the request parser: ``python tests/fuzz/fuzz_parser.py --seconds 60``; see README.rst.

The bytes that libFuzzer makes are those of one connection, but for the last eight: these are four
places where the network cuts the others.  What has to hold for them is in ``checks.py``.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

CUTS = struct.Struct(">4H")
LONGEST = 4096
"""Bytes of one input; the limits of ``checks.py`` are below it."""

WORDS = (
    "GET ",
    "POST ",
    " HTTP/1.1\\x0d\\x0a",
    " HTTP/1.0\\x0d\\x0a",
    "Host: x\\x0d\\x0a",
    "Content-Length: ",
    "Transfer-Encoding: chunked\\x0d\\x0a",
    "Connection: close\\x0d\\x0a",
    "Connection: Upgrade\\x0d\\x0aUpgrade: websocket\\x0d\\x0a",
    "Expect: 100-continue\\x0d\\x0a",
    "\\x0d\\x0a\\x0d\\x0a",
    "0\\x0d\\x0a\\x0d\\x0a",
    "PRI * HTTP/2.0\\x0d\\x0a\\x0d\\x0a",
    "http://x/",
)
"""What a fuzzer would need long to find by itself, as libFuzzer writes it."""


def take_apart(given: bytes) -> tuple[bytes, tuple[int, ...]]:
    """The bytes of the connection, and where they are cut."""
    data, cuts = given[: -CUTS.size], given[-CUTS.size :]
    return (data, CUTS.unpack(cuts)) if len(cuts) == CUTS.size else (given, ())


def write_corpus(folder: Path) -> int:
    """The wire cases as inputs, so that the fuzzer begins where the tests are; returns how many."""
    from wire.test_wire import CASES, read_case

    for path in CASES:
        data = read_case(path)[0][:LONGEST]
        third = len(data) // 3
        (folder / path.stem).write_bytes(data + CUTS.pack(third, 2 * third, len(data) - 1, 0))
    return len(CASES)


def fuzz(options: list[str]) -> None:
    """Run libFuzzer in this process; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["gpulse.http"]):
        from fuzz.checks import LIMITS, check

        from gpulse.http.head import HeadParser

    heads = HeadParser(LIMITS)

    def one(given: bytes) -> None:
        data, cuts = take_apart(given)
        check(data, cuts, heads)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def replay(path: Path) -> None:
    """Check one input, without atheris; fails as it failed for the fuzzer."""
    from fuzz.checks import LIMITS, check

    from gpulse.http.head import HeadParser

    data, cuts = take_apart(path.read_bytes())
    sys.stdout.write(f"{data!r}\ncut at {cuts}\n")
    sys.stdout.write(f"{check(data, cuts, HeadParser(LIMITS))}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="how long (60)")
    parser.add_argument("--keep", type=Path, help="a directory for new inputs, to go on from")
    parser.add_argument("--replay", type=Path, help="check the input in a file and end")
    parser.add_argument("options", nargs="*", help="options of libFuzzer, behind --")
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2:])
    chosen = parser.parse_args()
    if chosen.replay is not None:
        replay(chosen.replay)
        return 0
    with tempfile.TemporaryDirectory(prefix="gpulse-fuzz-") as name:
        seeds, words = Path(name, "seeds"), Path(name, "words")
        seeds.mkdir()
        sys.stdout.write(f"{write_corpus(seeds)} inputs from tests/wire/http\n")
        sys.stdout.flush()
        words.write_text("".join(f'"{word}"\n' for word in WORDS))
        found = chosen.keep or Path(name, "found")
        found.mkdir(parents=True, exist_ok=True)
        failed = Path(tempfile.gettempdir(), "gpulse-fuzz-")
        command = [
            *(sys.executable, __file__, "--child", str(found), str(seeds), f"-dict={words}"),
            *(f"-max_total_time={chosen.seconds}", f"-max_len={LONGEST}", "-timeout=10"),
            *(f"-artifact_prefix={failed}", "-print_final_stats=1", *chosen.options),
        ]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
