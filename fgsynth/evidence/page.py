"""HTML pages: one house style, one file, nothing fetched from a network."""

import html
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup, escape
from pygments.formatters import HtmlFormatter

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["emphasised"] = emphasised
    return environment


def emphasised(text: str) -> Markup:
    """A line of Markdown with *emphasis* and `code` as HTML."""
    code = re.sub(r"`(.+?)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*(.+?)\*", r"<em>\1</em>", code))


def render(template: str, **values: object) -> str:
    """A template of `templates` filled in; text is escaped."""
    return _environment().get_template(template).render(**values)


def notebook_page(name: str, body: str) -> str:
    """A notebook's HTML fragment as a page of its own."""
    highlight = HtmlFormatter(nowrap=True).get_style_defs(".highlight")
    return render("notebook.html", title=html.unescape(name), body=Markup(body), highlight=Markup(highlight))
