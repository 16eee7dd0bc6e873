"""The page around what a report says: one file that needs no other and asks nobody for anything."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

from tats_ray.core.errors import UsageError
from tats_ray.core.storage import replace_text


def page_html(title: str, sections: Sequence[str], *, light: str, dark: str) -> str:
    """A whole page.

    Args:
        sections: markup, as `section` gives it; empty ones are left out.
        light, dark: CSS declarations of the colours.
    """
    script = _part("report.js")
    digest = base64.b64encode(sha256(script.encode()).digest()).decode("ascii")
    return _PAGE.format(
        title=escape(title),
        digest=digest,
        style=f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        + _part("report.css"),
        body="\n".join(filter(None, sections)),
        script=script,
    )


def section(title: str, body: str) -> str:
    """A part of a page under its heading; empty where it says nothing."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    titles = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    body = f"<thead><tr>{titles}</tr></thead><tbody>{lines}</tbody>"
    place = '<div class="table" tabindex="0" role="group" aria-label="Final figures">'
    return f"{place}<table>{body}</table></div>"


def write_page(path: Path, text: str) -> Path:
    """A whole page or none.

    Raises:
        UsageError: when the storage refuses it, with the reason.
    """
    try:
        replace_text(path, text)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def unwritable(path: Path, error: OSError) -> UsageError:
    """What to say where the storage refuses a part of a report."""
    return UsageError(
        f"report {path} cannot be written ({error.strerror or error}); free space and write it "
        "with `tats report`, or name another file with --out"
    )


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'sha256-{digest}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1></header>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
