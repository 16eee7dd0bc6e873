"""Tables of figures: drawn on a terminal, aligned text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_NO_LIMIT = 100_000
"""Columns of what is no terminal: nothing is folded there."""


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print rows of words; all but the first column are aligned to the right."""
    is_drawn = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if is_drawn else None, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console() if is_drawn else Console(width=_NO_LIMIT, force_terminal=False)
    if title:
        console.print(Text(title, "italic"))
    console.print(table)
