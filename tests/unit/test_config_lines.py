"""Lines of keys in a TOML document."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunstack.daemon.tomlfile import Document, Position, TomlError

TRICKY = '''\
# a comment with a = 1 and [table]
top = 1 # [not.a.table]
"quoted key".'lit.eral'.bare-1 = "a # b = [c]"
site."x\\"y\\u00e9" = """
[in.string]
key = 1
\\""" still """""
raw = \'\'\'
[also.in.string]
\\\'\'\'

numbers = [
  1, # one
  [ 2, 3 ],
  { deep = { deeper = "}" } , other = [ "]",
    4 ] },
]

[ table . "sub.table" ]
when = 1979-05-27 07:32:00
empty = {}
none = []

[[list]]
name = "first"
[list.inner]
a = 1
[[list.inner-list]]
b = 1
[[list.inner-list]]
b = 2

[[list]]
name = "second"
[list.inner]
a = 2
'''


def leaves(value: object, position: Position = ()) -> list[Position]:
    """Return the position of everything in a parsed document."""
    inner: list[Position] = [position] if position else []
    if isinstance(value, dict):
        for key, item in value.items():
            inner += leaves(item, (*position, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            inner += leaves(item, (*position, index))
    return inner


def test_lines_of_a_tricky_document() -> None:
    document = Document(TRICKY.encode())
    lines = TRICKY.splitlines()

    def expect(position: Position, start: str, nth: int = 0) -> None:
        found = [number for number, line in enumerate(lines, 1) if line.startswith(start)]
        assert document.line(position) == found[nth], position

    expect(("top",), "top")
    expect(("quoted key", "lit.eral", "bare-1"), '"quoted key"')
    expect(("quoted key",), '"quoted key"')
    expect(("site", 'x"yé'), "site.")
    expect(("raw",), "raw")
    expect(("numbers", 0), "  1,")
    expect(("numbers", 1, 1), "  [ 2")
    expect(("numbers", 2, "deep", "deeper"), "  { deep")
    expect(("numbers", 2, "other", 1), "    4 ]")
    expect(("table", "sub.table"), "[ table")
    expect(("table", "sub.table", "when"), "when")
    expect(("list", 0, "name"), "name", 0)
    expect(("list", 0, "inner", "a"), "a = 1")
    expect(("list", 0, "inner-list", 0, "b"), "b = 1")
    expect(("list", 0, "inner-list", 1, "b"), "b = 2")
    expect(("list", 1, "name"), "name", 1)
    expect(("list", 1, "inner", "a"), "a = 2")


def test_positions_are_exactly_those_that_tomllib_finds() -> None:
    assert set(Document(TRICKY.encode()).positions()) == set(leaves(tomllib.loads(TRICKY)))


def test_windows_line_ends_count_once() -> None:
    document = Document(b"a = 1\r\n\r\n[b]\r\nc = '''x\r\ny'''\r\nd = 2\r\n")
    assert [document.line(position) for position in (("a",), ("b",), ("b", "c"), ("b", "d"))] == [1, 3, 4, 6]


def test_line_of_what_is_not_there_is_that_of_its_table() -> None:
    document = Document(b"\n\n[b]\nc = 1\n")
    assert document.line(("b", "x", "y")) == 3
    assert document.line(("z",)) == 1


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"a = 1\nb\n", 2), (b"a = 1\n\n\nb = [1,\n", 4), (b"", None), (b"a = '\n'", 1), (b"[a]\n[a]\n", 2), (b'a = 1\nb = "\\q"', 2)],
)
def test_syntax_error_has_its_line(data: bytes, line: int | None) -> None:
    if line is None:
        assert Document(data).values == {}
        return
    with pytest.raises(TomlError) as caught:
        Document(data)
    assert caught.value.line == line
    assert "at line" not in str(caught.value)


KEY = st.sampled_from(["a", "b-1", '"q.k"', "'l k'", '"\\"#"', "7"])
SCALAR = st.sampled_from(["1", '"x # ]}"', "'it'", '"""m\n"" l"""', "'''r\n\\'''", "1979-05-27 07:32:00", "-3.5e2", "true", "inf"])
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ # c\n" + ",\n".join(items) + " ]"),
        st.dictionaries(KEY, inner, max_size=2).map(lambda items: "{" + ", ".join(f"{key} = {item}" for key, item in items.items()) + "}"),
    ),
    max_leaves=6,
)
LINE = st.one_of(
    st.tuples(st.lists(KEY, min_size=1, max_size=3), VALUE).map(lambda pair: f"{' . '.join(pair[0])} = {pair[1]} # c"),
    st.lists(KEY, min_size=1, max_size=3).map(lambda keys: f"[{'.'.join(keys)}]"),
    st.lists(KEY, min_size=1, max_size=3).map(lambda keys: f"[[ {'.'.join(keys)} ]]"),
    st.sampled_from(["", "  # comment [x]", "\t"]),
)


@settings(derandomize=True, max_examples=400)
@given(st.lists(LINE, max_size=8))
def test_positions_of_any_document_are_those_that_tomllib_finds(lines: list[str]) -> None:
    kept: list[str] = []
    for line in lines:  # a line that clashes with those before it is left out
        try:
            tomllib.loads("\n".join([*kept, line]))
        except tomllib.TOMLDecodeError:
            continue
        kept.append(line)
    text = "\n".join(kept)
    document = Document(text.encode())
    assert set(document.positions()) == set(leaves(tomllib.loads(text)))
    # The line is one on which the last key of the position is written.
    rows = text.split("\n")
    for position, line in document.positions().items():
        last = position[-1]
        if isinstance(last, str):
            written = {"q.k": '"q.k"', "l k": "'l k'", '"#': '"\\"#"'}.get(last, last)
            assert written in rows[line - 1]
