"""The map of the code: rooms in one order, each using only those below it; public names; the wheel."""

import ast
import re
import subprocess
import sys

import pytest
from imports import closure, modules_used

import fgsynth


@pytest.fixture(scope="module")
def rooms(root):
    """The rooms from the ground up, as CONTRIBUTING.md lists them."""
    return re.findall(r"^ *([a-z]+)/ {2,}\S", (root / "CONTRIBUTING.md").read_text(), re.MULTILINE)


def packages(root):
    return {
        path.name for path in (root / "fgsynth").iterdir() if path.is_dir() and path.name != "__pycache__"
    }


def test_every_room_is_on_the_list_and_every_module_in_a_room(root, rooms):
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == packages(root)
    assert {path.name for path in (root / "fgsynth").glob("*.py")} == {"__init__.py", "__main__.py"}
    assert all(list((root / "fgsynth" / room).rglob("*.py")) for room in rooms)


def test_a_room_uses_only_rooms_below_it(root, rooms):
    upward = []
    for path in sorted((root / "fgsynth").rglob("*.py")):
        parts = path.relative_to(root / "fgsynth").parts
        if len(parts) == 1:
            continue
        for used in modules_used(root, path.read_text()):
            room = used.split("/")[1]
            if room not in rooms or rooms.index(room) > rooms.index(parts[0]):
                upward.append(f"{'/'.join(parts)} uses {used}")
    assert upward == []


def test_no_module_imports_itself_through_others(root):
    files = {str(path.relative_to(root)) for path in (root / "fgsynth").rglob("*.py")} - {
        "fgsynth/__init__.py"
    }
    uses = {name: modules_used(root, (root / name).read_text()) - {name} for name in files}
    while free := {name for name, used in uses.items() if not used & uses.keys()}:
        uses = {name: used for name, used in uses.items() if name not in free}
    assert set(uses) == set()


def test_tests_mirror_the_rooms(root, rooms):
    folders = {path.parent.name for path in (root / "tests").glob("*/*.py")}
    assert folders <= set(rooms)


def test_public_names_are_what_they_say_and_load_when_they_are_used(root):
    tree = ast.parse((root / "fgsynth" / "__init__.py").read_text())
    typed = {
        alias.asname: f"{node.module}.{alias.name}".removeprefix("fgsynth.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fgsynth")
        for alias in node.names
    }
    modules = {name: f"{module}.{name}" for name, module in fgsynth.PUBLIC.items()}
    modules["criteria"] = "guidance.criteria"
    assert typed == modules
    assert set(fgsynth.PUBLIC) <= set(dir(fgsynth))
    assert all(getattr(fgsynth, name).__doc__ for name in fgsynth.PUBLIC)
    code = (
        "import fgsynth, sys; print('torch' in sys.modules); fgsynth.Guidance; print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'Generater'"):
        fgsynth.Generater  # noqa: B018


def test_the_walk_follows_packages_and_public_names(root):
    assert "fgsynth/latent/estimator.py" in modules_used(root, "from fgsynth import LatentClassifier")
    run = closure(root, modules_used(root, "from fgsynth import ddim"))
    assert {"fgsynth/guidance/samplers.py", "fgsynth/guidance/schedule.py"} <= run
    assert not any(name.startswith("fgsynth/generate/") for name in run)


def test_the_wheel_installs_and_imports_every_room(root, tmp_path, rooms):
    source = tmp_path / "source"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "fgsynth"],
        capture_output=True, text=True, check=True, cwd=root,
    ).stdout.split()  # fmt: skip
    for name in [
        *names,
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements.lock",
        "requirements-cluster.lock",
        "requirements-photos.lock",
    ]:
        if (root / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((root / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(built, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True
    )
    assert {name for name in names if not (site / name).is_file() and (root / name).is_file()} == set()
    first = [f"fgsynth.{room}" for room in rooms]
    code = f"import importlib as i, fgsynth; print(fgsynth.__file__); [i.import_module(m) for m in {first}]"
    where = {"PYTHONPATH": str(site), "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=where
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(site))
