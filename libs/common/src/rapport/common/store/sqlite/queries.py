"""The reading SQL: conditions on declared fields, pages, tallies.

A page is found in an index first and its documents are read afterwards, so sorting never carries
documents. Lists of values travel as one JSON parameter: one statement serves any number. A plus
before a column is SQLite's way of saying: not by this one's index.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rapport.common.store.fields import Condition
from rapport.common.store.port import Range, Where
from rapport.common.store.sqlite.table import Table, quoted


class Query(NamedTuple):
    """A statement and its parameters."""

    sql: str
    parameters: Sequence[Any]


def by_ids(table: Table, ids: Sequence[str]) -> Query:
    """Ask for the items of `ids`: id and what `Table.read` takes."""
    asked = f"SELECT id, {table.found} FROM {table.name} WHERE id"
    if len(ids) == 1:
        return Query(f"{asked} = ?", ids)
    return Query(f"{asked} IN (SELECT value FROM json_each(?))", [json.dumps(ids)])


def page(
    table: Table, where: Where | None, limit: int, cursor: str | None, *, newest_first: bool
) -> Query:
    """Ask for up to `limit` items in order: stored order, id and what `Table.read` takes."""
    beyond, way = ("<", "DESC") if newest_first else (">", "ASC")
    order = table.order
    if _ranges_elsewhere(table, where):
        order = [f"+{column}" for column in order]
    terms = list(_terms_of(table, where, beyond if cursor else ""))
    if cursor is not None:
        place = table.declared.place(cursor)[-len(order) :]
        terms.append(Query(f"({', '.join(order)}) {beyond} ({', '.join('?' * len(place))})", place))
    sql, parameters = _where(terms)
    ordered = ", ".join(f"{column} {way}" for column in order)
    keys = f"SELECT rowid FROM {table.name} {sql} ORDER BY {ordered} LIMIT ?"
    found = f"{table.order[0]}, id, {table.found}"
    return Query(
        f"SELECT {found} FROM {table.name} WHERE rowid IN ({keys}) ORDER BY {ordered}",
        [*parameters, limit],
    )


def tally(table: Table, by: Sequence[str], where: Where | None, sums: Sequence[str]) -> Query:
    """Ask for groups: the fields of `by`, the count, the sums."""
    groups = ", ".join(quoted(table.declared.field(name).name) for name in by)
    totals = [f"total({quoted(table.declared.summed(name).name)})" for name in sums]
    sql, parameters = _where(list(_terms_of(table, where)))
    columns = ", ".join([*([groups] if by else []), "count(*)", *totals])
    grouping = f"GROUP BY {groups} ORDER BY {groups}" if by else ""
    return Query(f"SELECT {columns} FROM {table.name} {sql} {grouping}", parameters)


def due(table: Table, now: int, limit: int) -> Query:
    """Ask for what is due at `now`, the most overdue first: id and what `Table.read` takes."""
    return Query(
        f"SELECT id, {table.found} FROM {table.name} WHERE next_due <= ? AND schema <= ? "
        "ORDER BY next_due, id LIMIT ?",
        [now, table.newest, limit],
    )


def next_due(tables: Sequence[Table]) -> Query:
    """Ask for the earliest `next_due` of each table."""
    each = (
        f"SELECT (SELECT min(next_due) FROM {table.name} WHERE next_due IS NOT NULL)"
        for table in tables
    )
    return Query(" UNION ALL ".join(each), [])


def _ranges_elsewhere(table: Table, where: Where | None) -> bool:
    """Tell whether a field that does not order the list is in a range, which must seek instead."""
    return any(
        isinstance(wanted, Range) and name != table.kind.ORDER
        for name, wanted in (where or {}).items()
    )


def _where(terms: Sequence[Query]) -> Query:
    parameters = [value for term in terms for value in term.parameters]
    return Query("WHERE " + " AND ".join(term.sql for term in terms) if terms else "", parameters)


def _terms_of(table: Table, where: Where | None, beyond: str = "") -> Iterator[Query]:
    for name, condition in table.declared.conditions(where):
        yield from _terms(quoted(name), condition, beyond if name == table.kind.ORDER else "")


def _terms(column: str, condition: Condition, beyond: str = "") -> Iterator[Query]:
    """Turn a condition into SQL; `beyond` is the comparison by which a cursor seeks this column.

    The bound of a range on that side then only filters, or SQLite might seek by it and read all the
    pages before the cursor again.
    """
    if isinstance(condition, Range):
        if condition.start is not None:
            yield Query(f"{'+' if beyond == '>' else ''}{column} >= ?", [condition.start])
        if condition.end is not None:
            yield Query(f"{'+' if beyond == '<' else ''}{column} < ?", [condition.end])
    elif isinstance(condition, list):
        values = json.dumps([value for value in condition if value is not None])
        any_of = f"{column} IN (SELECT value FROM json_each(?))"
        yield Query(f"({any_of} OR {column} IS NULL)" if None in condition else any_of, [values])
    elif condition is None:
        yield Query(f"{column} IS NULL", [])
    else:
        yield Query(f"{column} = ?", [condition])
