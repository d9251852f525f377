"""Files are read record by record; what is broken is told by its line, and the rest goes on."""

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.common.errors import Invalid
from rapport.standalone.readers import MAX_RECORD, read_file, read_stream

COMPLAINTS = Path(__file__).parents[4] / "shared" / "data" / "cfpb" / "complaints.csv"

Shown = list[tuple[int, object]]


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def __init__(self, body: bytes, at_once: int) -> None:
        self._body = io.BytesIO(body)
        self._at_once = at_once

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._body.read(min(len(buffer), self._at_once))
        buffer[: len(piece)] = piece
        return len(piece)


def show(body: bytes, suffix: str = "") -> Shown:
    """Every record's line, and its document or its problems."""
    return [
        (line, content if isinstance(content, dict) else told(content))
        for line, content in read_stream(io.BytesIO(body), suffix)
    ]


def told(refusal: Invalid) -> list[tuple[str, str]]:
    return [(problem.pointer, problem.reason) for problem in refusal.problems]


def test_a_table_has_a_header_and_quoted_line_breaks() -> None:
    body = 'Issue,Text\r\nleak,"It leaks,\r\n""badly""."\r\n\r\n漏水,把手\r\n'.encode()
    assert show(body) == [
        (2, {"Issue": "leak", "Text": 'It leaks,\r\n"badly".'}),
        (5, {"Issue": "漏水", "Text": "把手"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_from_the_header(delimiter: str) -> None:
    body = f'a{delimiter}"b,;\t|"{delimiter}c\n1{delimiter}2{delimiter}3\n'.encode()
    assert show(body) == [(2, {"a": "1", "b,;\t|": "2", "c": "3"})]


def test_one_column_is_a_table_too() -> None:
    assert show(b"text\nIt leaks.\n") == [(2, {"text": "It leaks."})]


def test_a_byte_order_mark_and_blank_lines_before_the_header_are_passed_over() -> None:
    assert show(b"\xef\xbb\xbf\r\n\na,b\n1,2") == [(4, {"a": "1", "b": "2"})]


def test_a_broken_row_is_told_and_the_rest_goes_on() -> None:
    body = b'a,b\n1\n1,2,3\n\xff,2\n"x"y,2\n1,"\n\n2\n3,"4"\n5,6\n'
    assert show(body) == [
        (2, [("", "has 1 columns, and the header has 2")]),
        (3, [("", "has 3 columns, and the header has 2")]),
        (4, [("/a", "is not valid UTF-8")]),
        (5, [("", "has quotes that do not match")]),
        (6, [("", "has quotes that do not match; everything up to line 9 went with it")]),
        (10, {"a": "5", "b": "6"}),
    ]


def test_a_quote_that_never_closes_takes_the_rest() -> None:
    assert show(b'a,b\n1,2\n3,"4\n5,6\n')[1:] == [
        (3, [("", "has quotes that do not match; everything up to line 4 went with it")])
    ]


def test_what_is_too_long_is_passed_over_whole() -> None:
    field = b'"' + b"x" * 131_073 + b'"'
    line = b"x" * (MAX_RECORD + 10)
    many_lines = b'"' + b"x\n" * (MAX_RECORD // 2 + 10) + b'"'
    short_fields = b",".join([b'"' + b"x\n" * 1_000 + b'"'] * 600)
    for long in (field, line, many_lines, short_fields):
        ((first, problem), (last, good)) = show(b"a,b\n" + long + b",1\n2,3\n")
        assert (first, good) == (2, {"a": "2", "b": "3"})
        assert last == 3 + long.count(b"\n")
        assert isinstance(problem, list)
        assert problem[0][1].startswith(("is longer than 1,048,576", "holds a field of more than"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        ("a,b\n".encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
        ("名字,内容\n".encode("gb18030"), "the header is not UTF-8: save the file as UTF-8"),
        (b"a,b,a\n", "columns 1 and 3 have the same name in the header"),
        (b"a,,c\n", "column 2 has no name in the header"),
        (b'a,"b\n1,2\n', "line 1 is not the header of a table"),
        (b"x" * (MAX_RECORD + 10), "line 1 is not the header of a table"),
    ],
)
def test_a_file_without_a_usable_beginning_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        show(body)


def test_lines_of_json() -> None:
    body = b'{"a": 1}\n\n{"a": 2\n{"a": "\xff"}\n[3]\n{"a": 4, "a": 5}\r\n{"a": 6}'
    assert show(body) == [
        (1, {"a": 1}),
        (3, [("", "is not JSON: EOF while parsing an object at line 2 column 0")]),
        (4, [("/a", "is not valid Unicode (UTF-8)")]),
        (5, [("", "must be an object")]),
        (6, [("/a", "is given twice")]),
        (7, {"a": 6}),
    ]


def test_a_first_line_of_broken_json_needs_the_files_name() -> None:
    body = b'{"a": 1\n{"a": 2}\n'
    assert [line for line, _ in show(body)] == [1]
    assert show(body, ".jsonl")[1] == (2, {"a": 2})


def test_a_line_that_is_too_long_is_passed_over() -> None:
    body = b'{"a": 1}\n{"a": "' + b"x" * MAX_RECORD + b'"}\n{"a": 3}\n'
    assert show(body)[1:] == [
        (2, [("", "is longer than 1,048,576 bytes")]),
        (3, {"a": 3}),
    ]


def test_a_file_may_be_one_document() -> None:
    assert show(b'{\n  "tickets": [{"id": 1}]\n}\n') == [(1, {"tickets": [{"id": 1}]})]
    assert show(b'\n{"tickets": []}') == [(2, {"tickets": []})]


def test_one_document_has_a_limit() -> None:
    with pytest.raises(Invalid, match="one JSON document of more than"):
        show(b'{\n"a": "' + b"x" * 16 * MAX_RECORD + b'"}')


def test_the_items_of_an_array_come_with_their_lines() -> None:
    body = (
        b'[\n  {"a": 1},\n\n  {"a": "],{\\"", "b": [{}]}, {"a": 1, "a": 2},\n'
        b'  7, {"a": tru},,\n {"a": 2}\n]\n'
    )
    assert show(body) == [
        (2, {"a": 1}),
        (4, {"a": '],{"', "b": [{}]}),
        (4, [("/a", "is given twice")]),
        (5, [("", "must be an object")]),
        (5, [("", "is not JSON: expected ident at line 1 column 11")]),
        (5, [("", "is not JSON: EOF while parsing a value at line 1 column 0")]),
        (6, {"a": 2}),
    ]


def test_an_empty_array_has_no_records() -> None:
    assert show(b" [ \n ] \n") == []


def test_an_item_that_is_too_long_is_passed_over() -> None:
    body = b'[{"a": 1},\n{"a": "' + b"\\n," * MAX_RECORD + b'"},\n{"a": 3}]'
    assert show(body)[1:] == [
        (2, [("", "is longer than 1,048,576 bytes")]),
        (3, {"a": 3}),
    ]


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (b"", (2, [("", "is missing: the file ends before its array does")])),
        (b', {"b": ', (2, [("", "is missing: the file ends before its array does")])),
        (b"]\n, 3", (2, [("", "stands after the end of the array")])),
    ],
)
def test_an_array_that_ends_wrongly_is_told(end: bytes, problem: tuple[int, object]) -> None:
    assert show(b'[\n{"a": 1}' + end) == [(2, {"a": 1}), problem]


texts = st.text(st.sampled_from('a"\\,;[]{}\n\r 漏ی😀'), max_size=12)
rows = st.lists(st.fixed_dictionaries({"a": texts, "b?": texts}), max_size=8)


@given(rows, st.integers(1, 20), st.sampled_from([None, 1]))
def test_an_array_is_read_however_it_arrives(
    documents: list[dict[str, str]], at_once: int, indent: int | None
) -> None:
    body = json.dumps(documents, ensure_ascii=False, indent=indent).encode()
    stream = io.BufferedReader(Trickle(body, at_once), buffer_size=at_once)
    assert [content for _, content in read_stream(stream)] == documents


@given(rows)
def test_a_table_is_read_as_it_was_written(documents: list[dict[str, str]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["a", "b?"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(documents)
    records = list(read_stream(io.BytesIO(file.getvalue().encode())))
    assert [content for _, content in records] == documents


@given(st.binary(max_size=200), st.sampled_from([b"a,b\n", b"[", b"{}\n", b""]))
def test_no_bytes_break_a_reader(body: bytes, beginning: bytes) -> None:
    try:
        records = list(read_stream(io.BytesIO(beginning + body)))
    except Invalid:
        return
    assert [line for line, _ in records] == sorted(line for line, _ in records)


LINES = st.lists(
    st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b""))
    | st.sampled_from([b"{}", b'{"a": 1}', b"x,y", b"1,2,3", b"\xff,\xfe", b" ", b"[1]", b"null"]),
    max_size=12,
)


@given(LINES)
def test_every_line_of_a_file_is_accounted_for(lines: list[bytes]) -> None:
    body = b"".join(line + b"\n" for line in lines)
    records = list(read_stream(io.BytesIO(b"{}\n" + body), ".jsonl"))
    wanted = [number for number, line in enumerate(lines, 2) if line.strip()]
    assert [line for line, _ in records] == [1, *wanted]

    rows = [line for line in lines if b'"' not in line]
    table = b"".join(line + b"\n" for line in rows)
    records = list(read_stream(io.BytesIO(b"a,b\n" + table), ".csv"))
    assert [line for line, _ in records] == [n for n, row in enumerate(rows, 2) if row]


@pytest.mark.parametrize("end", [b",", b"\n"])
def test_memory_does_not_grow_with_the_file(end: bytes) -> None:
    item = json.dumps({"text": "It leaks, {again}. " * 30}).encode()
    stream = io.BytesIO((b"[" if end == b"," else b"") + (item + end) * 10_000)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_stream(stream))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count >= 10_000
    assert peak < 2_000_000 < len(stream.getvalue())


def test_standard_input_is_a_file_called_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n1\n")))
    assert list(read_file("-")) == [(2, {"a": "1"})]


def test_a_files_name_settles_what_it_is(tmp_path: Path) -> None:
    table = tmp_path / "odd.CSV"
    table.write_bytes(b"[a],b\n1,2\n")
    assert list(read_file(str(table))) == [(2, {"[a]": "1", "b": "2"})]


def test_the_regulators_table_is_read_whole() -> None:
    if not COMPLAINTS.exists():
        pytest.skip("shared data absent")
    records = list(read_file(str(COMPLAINTS)))
    assert len(records) == 6_623
    assert all(isinstance(content, dict) for _, content in records)
    lines = COMPLAINTS.read_bytes().splitlines()
    for line, content in records[::100]:
        assert isinstance(content, dict)
        assert lines[line - 1].startswith(content["Date received"].encode())
