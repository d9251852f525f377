"""Files of feedback, read as they stream by: CSV, JSON lines, a JSON array, or one JSON document.

What a file is, its first bytes say: `[` opens an array, `{` a document (one a line, or one in all),
anything else is a table with a header, whose delimiter is told from that header. Each record comes
with the line that it starts on. A record that cannot be read comes as its problem, and the reading
goes on with the next; only a file without a usable beginning is refused as a whole. Memory is
bounded by the longest record allowed, whatever the file's size.
"""

import csv
import re
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from rapport.common.errors import FieldProblem, Invalid, Malformed
from rapport.common.text import has_lone_surrogate
from rapport.intake.domain import parse_json

MAX_RECORD: Final = 1_048_576
"""Bytes of one record: a row with all its lines, a line of JSON, an item of an array."""

MAX_DOCUMENT: Final = 16 * MAX_RECORD
"""Bytes of a file that is one JSON document in all."""

_CHUNK: Final = 65_536
_DELIMITERS: Final = ",;\t|"
_QUOTED: Final = re.compile('"[^"]*"')
_IN_STRING: Final = re.compile(rb'\\.|"', re.DOTALL)
_OUTSIDE: Final = re.compile(rb'["\[\]{},]')
_NESTING: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class Record(NamedTuple):
    """One record: the line it starts on, from 1, and the document it holds, or what is wrong."""

    line: int
    content: dict[str, Any] | Invalid


def read_file(source: str) -> Iterator[Record]:
    """Yield the records of a file, or of standard input where `source` is "-".

    Raises OSError for a file that cannot be opened, and `Invalid` for one that is not a table or
    JSON in UTF-8 from its beginning.
    """
    if source == "-":
        yield from read_stream(sys.stdin.buffer)
    else:
        with open(source, "rb") as stream:
            yield from read_stream(stream, Path(source).suffix.lower())


def read_stream(stream: BinaryIO, suffix: str = "") -> Iterator[Record]:
    """Yield the records of `stream`; `suffix` (".csv") settles what its beginning leaves open.

    Raises `Invalid` as `read_file` does.
    """
    lines = _Lines(stream)
    first = lines.peek()
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Invalid("the file is UTF-16: save it as UTF-8")
    if suffix in (".csv", ".tsv") or not first.startswith((b"[", b"{")):
        return _table(lines)
    if first.startswith(b"["):
        return _array(lines)
    if suffix in (".jsonl", ".ndjson") or _is_json(first):
        return _json_lines(lines)
    return _document(lines)


class _TooLong(Exception):
    """A record is over the limit; the stream stands at the end of the line where that showed."""


class _Lines:
    """The lines of a stream, counted; together they may take `MAX_RECORD` bytes a record."""

    def __init__(self, stream: BinaryIO) -> None:
        self.number = 0
        self._stream = stream
        self._peeked = b""
        self._left = MAX_RECORD
        self._quotes = 0

    def peek(self) -> bytes:
        """Return the first line that is not blank, less a byte order mark, and leave it there."""
        while not self._peeked and (line := self._stream.readline(MAX_RECORD + 1)):
            self._peeked = line.removeprefix(b"\xef\xbb\xbf").lstrip(b" \r\n")
            self.number += not self._peeked
        return self._peeked

    def begin_record(self) -> int:
        """Allow the next record its full length; return the line it starts on."""
        self._left = MAX_RECORD
        self._quotes = 0
        return self.number + 1

    def finish_row(self) -> None:
        """Pass over the lines that a quoted field of this row still holds."""
        while self._quotes % 2 and (line := self._stream.readline(_CHUNK)):
            self.number += line.endswith(b"\n")
            self._quotes += line.count(b'"')

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line, self._peeked = self._peeked or self._stream.readline(MAX_RECORD + 1), b""
        if not line:
            raise StopIteration
        self.number += 1
        self._left -= len(line)
        self._quotes += line.count(b'"')
        if self._left < 0:
            while line and not line.endswith(b"\n"):
                line = self._stream.readline(_CHUNK)
                self._quotes += line.count(b'"')
            raise _TooLong
        return line

    def chunks(self) -> Iterator[bytes]:
        """Yield the rest of the stream as it comes, without regard to lines."""
        return chain([self._peeked], iter(lambda: self._stream.read(_CHUNK), b""))


def _table(lines: _Lines) -> Iterator[Record]:
    start = lines.number + 1
    delimiter = _delimiter(lines.peek())
    rows = csv.reader(map(_decoded, lines), delimiter=delimiter, strict=True)
    header = _header(start, rows)
    while True:
        start = lines.begin_record()
        try:
            cells = next(rows)
        except StopIteration:
            return
        except _TooLong:
            lines.finish_row()
            yield Record(start, _refusal(f"is longer than {MAX_RECORD:,} bytes"))
        except csv.Error as error:
            yield Record(start, _refusal(_quoting_fault(error, start, lines)))
        else:
            if cells:
                yield Record(start, _row(header, cells))


def _decoded(line: bytes) -> str:
    """Return the text of a line, broken bytes as lone surrogates."""
    return line.decode(errors="surrogateescape")


def _delimiter(first: bytes) -> str:
    outside_quotes = _QUOTED.sub("", _decoded(first))
    return max(_DELIMITERS, key=outside_quotes.count)


def _header(line: int, rows: Iterator[list[str]]) -> list[str]:
    try:
        names = [name.strip() for name in next(rows)]
    except StopIteration:
        raise Invalid("the file is empty") from None
    except (csv.Error, _TooLong):
        raise Invalid(f"line {line} is not the header of a table") from None
    if any(has_lone_surrogate(name) for name in names):
        raise Invalid("the header is not UTF-8: save the file as UTF-8")
    for position, name in enumerate(names, 1):
        if not name:
            raise Invalid(f"column {position} has no name in the header")
        if name in names[: position - 1]:
            first = names.index(name) + 1
            raise Invalid(f"columns {first} and {position} have the same name in the header")
    return names


def _row(header: list[str], cells: list[str]) -> dict[str, Any] | Invalid:
    if len(cells) != len(header):
        return _refusal(f"has {len(cells)} columns, and the header has {len(header)}")
    broken = [
        FieldProblem(f"/{name}", "is not valid UTF-8")
        for name, cell in zip(header, cells, strict=True)
        if has_lone_surrogate(cell)
    ]
    if broken:
        return Malformed("the row cannot be read", broken)
    return dict(zip(header, cells, strict=True))


def _quoting_fault(error: csv.Error, start: int, lines: _Lines) -> str:
    if "field larger" in str(error):
        lines.finish_row()
        return f"holds a field of more than {csv.field_size_limit():,} characters"
    if lines.number == start:
        return "has quotes that do not match"
    return f"has quotes that do not match; everything up to line {lines.number} went with it"


def _json_lines(lines: _Lines) -> Iterator[Record]:
    while True:
        start = lines.begin_record()
        try:
            line = next(lines)
        except StopIteration:
            return
        except _TooLong:
            yield Record(start, _refusal(f"is longer than {MAX_RECORD:,} bytes"))
        else:
            if line.strip():
                yield Record(start, _object(line))


def _document(lines: _Lines) -> Iterator[Record]:
    start, body = lines.begin_record(), b""
    for chunk in lines.chunks():
        body += chunk
        if len(body) > MAX_DOCUMENT:
            raise Invalid(f"the file is one JSON document of more than {MAX_DOCUMENT:,} bytes")
    yield Record(start, _object(body))


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line)
    except Malformed:
        return False
    return True


def _object(body: bytes) -> dict[str, Any] | Invalid:
    try:
        value = parse_json(body)
    except Malformed as refusal:
        return refusal
    return value if isinstance(value, dict) else _refusal("must be an object")


def _refusal(reason: str) -> Invalid:
    return Malformed("the record cannot be read", [FieldProblem("", reason)])


class _Item:
    """An array's item while it is read: its bytes as far as they are allowed, and its lines."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._body = bytearray()
        self._is_too_long = False
        self.next_line = line

    def add(self, piece: bytes) -> None:
        """Take more of the item."""
        self.next_line += piece.count(b"\n")
        self._is_too_long |= len(self._body) + len(piece) > MAX_RECORD
        self._body += piece[: MAX_RECORD - len(self._body)]

    @property
    def is_blank(self) -> bool:
        """Whether nothing but white space was read."""
        return not self._body.strip()

    def record(self) -> Record:
        """Return the item as a record, on the line of its first character."""
        before = len(self._body) - len(self._body.lstrip())
        line = self._line + self._body.count(b"\n", 0, before)
        if self._is_too_long:
            return Record(line, _refusal(f"is longer than {MAX_RECORD:,} bytes"))
        return Record(line, _object(bytes(self._body)))


def _array(lines: _Lines) -> Iterator[Record]:
    """Cut an array into items by brackets, commas and quotes alone, and parse each by itself."""
    item, chunks = _Item(lines.begin_record()), lines.chunks()
    depth = begin = 0
    is_first = True
    for chunk, place, mark in _marks(chunks):
        depth += _NESTING.get(mark, 0)
        if depth == 1 and mark == b"[":
            begin = 1
        elif not mark:
            item.add(chunk[begin:])
            begin = 0
        elif depth == 0 or (depth == 1 and mark == b","):
            item.add(chunk[begin:place])
            if depth or not (is_first and item.is_blank):
                yield item.record()
            item, begin, is_first = _Item(item.next_line), place + 1, False
            if depth == 0:
                break
    else:
        if depth == 1 and not item.is_blank:
            yield item.record()
        yield Record(item.next_line, _refusal("is missing: the file ends before its array does"))
        return
    if any(rest.strip() for rest in chain([chunk[begin:]], chunks)):
        yield Record(item.next_line, _refusal("stands after the end of the array"))


def _marks(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield every bracket and comma outside strings with its chunk and place; b"" ends a chunk."""
    in_string = is_escaped = False
    for chunk in chunks:
        place = int(is_escaped)
        while match := (_IN_STRING if in_string else _OUTSIDE).search(chunk, place):
            place = match.end()
            if match[0] == b'"':
                in_string = not in_string
            elif not in_string:
                yield chunk, match.start(), match[0]
        is_escaped = in_string and place < len(chunk) and chunk.endswith(b"\\")
        yield chunk, len(chunk), b""
