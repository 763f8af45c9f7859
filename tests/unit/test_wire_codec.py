"""Which implementation of the codec is taken, and that the two have one interface."""

from __future__ import annotations

import inspect
import subprocess
import sys

from tunstack.wire import codec, native, twin

NAMES = ("Reader", "Writer", "checksum", "encode", "parse_datagram")

WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["tunstack.wire._native"] = None  # what an import of it finds where it was not built
from tunstack.wire import codec
import tunstack.wire.codec
assert codec.BACKEND == "python", codec.BACKEND
assert codec.checksum(b"ab") == 0xFFFF ^ 0x6162
assert codec.Reader(False).parse([codec.encode(codec.parse_datagram(bytes.fromhex(
    "4500002800004000400626340a4d00010a4d00029c400050000000000000000050102000dea70000"
)))[0]]).segments
"""


def test_the_extension_is_taken_where_it_was_built() -> None:
    assert codec.BACKEND == "native" and codec.Reader is native.Reader  # type: ignore[comparison-overlap]


def test_without_the_extension_the_twin_stands_in_and_says_so_once() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTENSION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tunstack runs without its C extension") == 1


def test_tests_may_choose() -> None:
    try:
        codec.select("python")
        assert codec.BACKEND == "python" and all(getattr(codec, name) is getattr(twin, name) for name in NAMES)
    finally:
        codec.select("native")
    assert codec.BACKEND == "native" and all(getattr(codec, name) is getattr(native, name) for name in NAMES)


def test_both_have_the_same_interface() -> None:
    for name in NAMES:
        one, two = getattr(native, name), getattr(twin, name)
        assert inspect.signature(one) == inspect.signature(two), name
        if inspect.isclass(one):
            methods = [method for method, _ in inspect.getmembers(two, inspect.isfunction) if not method.startswith("_")]
            for method in methods:
                assert inspect.signature(getattr(one, method)) == inspect.signature(getattr(two, method)), method


def test_the_record_has_the_size_that_c_gives_it() -> None:
    from tunstack.wire._native import ffi

    formats = (native._RECEIVED, native._RARE, native._PLAIN, native._FULL)
    assert {each.size for each in formats} == {ffi.sizeof("struct ts_record")} == {native._RECORD}
