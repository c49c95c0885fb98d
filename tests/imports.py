"""What a piece of the project's code runs: the modules of fgsynth that it imports, and theirs."""

import ast
from pathlib import Path

# What cannot change a number: sentences, bars.
HARMLESS = {"fgsynth/utils/errors.py", "fgsynth/utils/progress.py"}


def modules_used(root: Path, source: str) -> set[str]:
    """Files of fgsynth that a piece of Python imports, relative to the root."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fgsynth":
            path = node.module.replace(".", "/")
            names = [f"{path}.py", *(f"{path}/{alias.name}.py" for alias in node.names)]
            found |= {name for name in names if (root / name).is_file()}
    return found


def closure(root: Path, first: set[str]) -> set[str]:
    seen, todo = set(), set(first)
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= modules_used(root, (root / name).read_text()) - seen
    return seen - HARMLESS


def outside(names: set[str], rooms: tuple[str, ...]) -> set[str]:
    """Those files that are neither one of these modules nor in one of these folders, named below fgsynth/."""
    inside = tuple(f"fgsynth/{room}{end}" for room in rooms for end in (".py", "/"))
    return {name for name in names if not name.startswith(inside)}
