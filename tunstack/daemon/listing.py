"""A directory as an HTML page. Names are octets: they are percent-encoded in links and escaped in the text."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from tunstack.daemon.tree import Entry

_STYLE = "body{font-family:sans-serif;margin:2em}td,th{padding:.1em 1.5em .1em 0;text-align:left}.n{text-align:right}"


def directory_page(names: Sequence[str], entries: Sequence[Entry]) -> str:
    """Return the page for the directory at a path below the root."""
    title = "/" + "".join(f"{show(name)}/" for name in names)
    rows = ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>'] if names else []
    for entry in entries:
        slash = "/" if entry.is_directory else ""
        # A relative link whose first part has a colon would be read as a scheme, hence "./".
        link = f'<a href="./{quote(os.fsencode(entry.name))}{slash}">{escape(show(entry.name))}{slash}</a>'
        modified = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.modified))
        rows.append(f'<tr><td>{link}</td><td class="n">{"" if entry.is_directory else entry.size}</td><td>{modified}</td></tr>')
    head = '<tr><th>Name</th><th class="n">Octets</th><th>Modified (UTC)</th></tr>'
    return page(title, f"<table>\n{head}\n" + "\n".join(rows) + "\n</table>")


def welcome_page() -> str:
    """Return the page of a server that has no files."""
    return page("tunstack", '<p>This is tunstack. It serves no files here; its state is at <a href="/status">/status</a>.</p>')


def page(title: str, body: str) -> str:
    """Return a whole page; `body` is HTML, `title` text."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n<h1>{escape(title)}</h1>\n{body}\n</body></html>\n"


def show(name: str) -> str:
    """Return a name for display: octets that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode(errors="replace")
