"""Text between marks: what a program writes into a document that is otherwise written by hand."""

from collections.abc import Mapping
from pathlib import Path

from fgsynth.utils.paths import read_text, write_text


def with_block(text: str, mark: str, block: str) -> str:
    """A text with what stands between <!--mark--> and <!--/mark--> replaced; without these as it is.

    A block of several lines gets empty lines around it, one within a line none.
    """
    before, after = f"<!--{mark}-->", f"<!--/{mark}-->"
    start, end = text.find(before), text.find(after)
    if start < 0 or end < start:
        return text
    gap = "\n\n" if "\n" in block else ""
    return f"{text[: start + len(before)]}{gap}{block}{gap}{text[end:]}"


def fill(path: Path, blocks: Mapping[str, str]) -> None:
    """Put every block between its marks in a file. Raises UserError where it cannot be read."""
    text = read_text(path)
    for mark, block in blocks.items():
        text = with_block(text, mark, block)
    write_text(path, text)
