"""The table of ``--plan``: figures with how each was got, and prices that turn some of them into money."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.rates import format_seconds
from crossdim.storage_schema.errors import UsageError

#: Options of prices by name, with what each is the price of.
PRICES = {
    "cpu_hour": "an hour of one processor core",
    "gpu_hour": "an hour of one GPU",
    "request": "1000 requests to the store",
    "gb_month": "storing 10^9 bytes for a month",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        key: its name in JSON.
        name: its name for people.
        values: one for each column, or one for all.
        show: writes a value for people.
        how: how it was got.
    """

    key: str
    name: str
    values: tuple[float, ...]
    show: Callable[[float], str]
    how: str


def make_figure(key: str, name: str, show: Callable[[float], str], how: str, *values: float) -> Figure:
    """Make one line of the table.

    Args:
        key: its name in JSON.
        name: its name for people.
        show: writes a value for people.
        how: how it was got.
        *values: one for each column, or one for all.

    Returns:
        The line.
    """
    return Figure(key=key, name=name, values=values, show=show, how=how)


def format_figures(columns: Sequence[str], figures: Sequence[Figure]) -> list[str]:
    """Format figures as a table.

    Args:
        columns: headings.
        figures: each with one value for all columns, or with as many as there are columns.

    Returns:
        Lines: a heading, then one for each figure; a value for all stands in the first column.
    """
    rows = [["", *columns, "how"]]
    for figure in figures:
        cells = list(map(figure.show, figure.values))
        rows.append([figure.name, *cells, *[""] * (len(columns) - len(cells)), figure.how])
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns) + 1)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:]), row[-1]]).rstrip().replace("\n", " ")
        for row in rows
    ]


def build_figure_document(columns: Sequence[str], figures: Sequence[Figure]) -> dict[str, Any]:
    """Build the figures as JSON values.

    Args:
        columns: headings.
        figures: of the table.

    Returns:
        By key: the value, or the values by column, and how it was got.
    """
    return {
        figure.key: {
            "value": figure.values[0] if len(figure.values) == 1 else dict(zip(columns, figure.values, strict=True)),
            "how": figure.how,
        }
        for figure in figures
    }


def format_bytes(number: float) -> str:
    """A number of bytes with three digits or more, such as ``12.3 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} B"


def format_number(number: float) -> str:
    """A whole number with commas between thousands."""
    return f"{number:,.0f}"


def format_hours(hours: float) -> str:
    """Hours of a processor or GPU, as hours or, below one, as seconds and minutes."""
    return f"{hours:,.1f} h" if hours >= 1 else format_seconds(hours * 3600)


def format_money(amount: float) -> str:
    """An amount in the currency of the prices."""
    return f"{amount:,.2f}" if amount >= 0.01 or amount == 0 else f"{amount:.2g}"


def parse_price(text: str) -> float:
    """Read a price: a number from 0 up."""
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no price: a number from 0 up, without a currency")
    return price


def add_price_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add the options of prices.

    Args:
        parser: of a verb with ``--plan``.
        names: of :data:`PRICES`.
    """
    group = parser.add_argument_group("prices", "for --plan, in any currency; without prices no cost is shown")
    for name in names:
        option = f"--price-{name.replace('_', '-')}"
        group.add_argument(option, type=parse_price, metavar="PRICE", help=f"of {PRICES[name]}")


def read_prices(arguments: argparse.Namespace) -> dict[str, float]:
    """Read the prices that were given.

    Raises:
        UsageError: if there are some without ``--plan``.
    """
    found = {name: price for name in PRICES if (price := getattr(arguments, f"price_{name}", None)) is not None}
    if found and not arguments.plan:
        raise UsageError(f"--price-{next(iter(found)).replace('_', '-')} needs --plan, which alone shows money")
    return found
