"""HTML pages: one house style, one file, nothing fetched from a network."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup, escape

from fgsynth.utils.paths import read_text

PAGES = {
    "index": "Start",
    "claims": "Claims",
    "tables": "Tables",
    "gallery": "Gallery",
    "plane": "The plane",
    "map": "Map",
    "notebooks": "Notebooks",
    "run": "Run",
}
"""The pages of the site, as they are linked on each."""
_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"emphasised": emphasised, "with_claims": with_claims, "breakable": breakable}
    environment.globals["pages"] = PAGES
    return environment


def emphasised(text: str) -> Markup:
    """A line of Markdown with *emphasis*, `code` and [links](to files of reports/) as HTML of a page."""
    code = re.sub(r"`(.+?)`", r"<code>\1</code>", str(escape(text)))
    links = re.sub(r"\[(.+?)\]\((.+?)\)", r'<a href="../\2">\1</a>', code)
    return Markup(re.sub(r"\*(.+?)\*", r"<em>\1</em>", links))


def with_claims(caption: str) -> Markup:
    """A caption whose claims (C1) are links to them, from a page of a notebook."""
    return Markup(re.sub(r"\b(C\d+)\b", r'<a href="../claims.html#\1">\1</a>', str(escape(caption))))


def breakable(name: str) -> Markup:
    """A name that a narrow column may break after a dot or underscore."""
    return Markup(re.sub(r"([._])", r"\1<wbr>", str(escape(name))))


def text(name: str) -> str:
    """A file of `templates` as it is."""
    return read_text(_TEMPLATES / name)


def render(template: str, **values: object) -> str:
    """A template of `templates` filled in; text is escaped."""
    return _environment().get_template(template).render(**values)
