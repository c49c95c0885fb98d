"""What a piece of the project's code runs: the modules of fgsynth that it imports, and theirs."""

import ast
from pathlib import Path

import fgsynth

# What cannot change a number: sentences, bars.
HARMLESS = {"fgsynth/utils/errors.py", "fgsynth/utils/progress.py"}


def modules_used(root: Path, source: str) -> set[str]:
    """Files of fgsynth that a piece of Python imports, relative to the root; packages by their __init__."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            # `import fgsynth.x` would hide what is used of it.
            assert not any(alias.name.startswith("fgsynth.") for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fgsynth":
            for alias in node.names:
                found |= _files(root, node.module or "", alias.name)
    return found


def _files(root: Path, module: str, name: str) -> set[str]:
    """The files behind `from module import name`."""
    if module == "fgsynth" and name in fgsynth.PUBLIC:
        module = f"fgsynth.{fgsynth.PUBLIC[name]}"
    path = module.replace(".", "/")
    stems = (path, f"{path}/{name}")
    names = [*(f"{stem}.py" for stem in stems), *(f"{stem}/__init__.py" for stem in stems)]
    found = {name for name in names if (root / name).is_file()}
    assert found, f"from {module} import {name}: no such module"
    return found


def closure(root: Path, first: set[str]) -> set[str]:
    """These files and all they import, but for the package's own lazy names and what is harmless."""
    seen, todo = set(), set(first)
    while todo:
        name = todo.pop()
        seen.add(name)
        if name != "fgsynth/__init__.py":
            todo |= modules_used(root, (root / name).read_text()) - seen
    return {name for name in seen - HARMLESS if not name.endswith("__init__.py")}


def outside(names: set[str], rooms: tuple[str, ...]) -> set[str]:
    """Those files that are neither one of these modules nor in one of these folders, named below fgsynth/."""
    inside = tuple(f"fgsynth/{room}{end}" for room in rooms for end in (".py", "/"))
    return {name for name in names if not name.startswith(inside)}
