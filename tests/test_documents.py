"""What the documents say of the code: lengths, links, commands, snippets, cited tests."""

import ast
import json
import os
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from imports import closure, modules_used

from fgsynth.config.stages import NOTEBOOKS
from fgsynth.pipeline.commands import parser

read_text = cache(Path.read_text)
DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "PITFALLS.md", "docs/cluster.md", "docs/real_sets.md", "docs/glossary.md",
    "docs/generators.md", "docs/worth_it.md", "reports/README.md",
]  # fmt: skip


def without_marks(text):
    return re.sub(r"<!--.*?-->", "", text)


def test_the_readme_has_at_most_900_words(root):
    words = without_marks((root / "README.md").read_text()).split()
    assert len(words) <= 900  # tables, code and addresses included


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_link_is_broken(root, name):
    text = (root / name).read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            assert ((root / name).parent / file).exists(), target
            assert not anchor or f'id="{anchor}"' in read_text((root / name).parent / file), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_and_command_is_there(root, name):
    text = (root / name).read_text()
    commands = parser()._subparsers._group_actions[0].choices
    for command in re.findall(r"python -m fgsynth ([a-z-]+)", text):
        assert command in commands, command
    for path in re.findall(r"`((?:fgsynth|tests|tools|docs|reports|data/paper)/[\w./]+)[`:]", text):
        assert (root / path).exists(), path
    made = set(re.findall(r"^  ([a-z_0-9]+):", (root / "dvc.yaml").read_text(), re.M))
    for stage in re.findall(r"dvc repro (?:--force --single-item )?([a-z_0-9]+)", text):
        assert stage in made, stage


def test_the_readme_says_which_scales_were_run(root):
    scales = set(pd.read_csv(root / "reports" / "results.csv")["scale"])
    assert ("Scale `paper` was not run" in (root / "README.md").read_text()) == ("paper" not in scales)


def test_the_readme_links_every_notebook(root):
    readme = (root / "README.md").read_text()
    assert all(f"(notebooks/{name}.ipynb)" in readme for name in NOTEBOOKS.values())


def named_tests(path):
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_pitfall_stands_in_a_room_and_is_held_by_tests_that_exist(root):
    parts = re.split(r"^## (.*)$", (root / "PITFALLS.md").read_text(), flags=re.M)
    rooms = [path.name for path in (root / "fgsynth").iterdir() if path.is_dir()]
    assert parts[1::2]
    assert set(parts[1::2]) <= set(rooms)
    for room, text in zip(parts[1::2], parts[2::2], strict=True):
        rows = text.strip().splitlines()[2:]
        assert rows, room
        for row in rows:
            cited = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
            assert cited, row
            for file, test in cited:
                assert (root / file).is_file(), row
                assert test in named_tests(root / file), row


def snippets(root):
    return re.findall(r"^```python\n(.*?)^```", (root / "README.md").read_text(), re.M | re.S)


def test_the_readmes_snippets_run(root, monkeypatch):
    monkeypatch.chdir(root)
    images, features = snippets(root)
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(3 * 32 * 32, 4, generator=g) / 30
    n = 2
    given = dict(
        images=[np.full((32, 32, 3), 60 * i, np.uint8) for i in range(n)], prompts=["fish"] * n, seeds=[0, 1],
        labels=torch.zeros(n, dtype=torch.long), n_classes=4,
        classifier=lambda x: (x.flatten(1) @ weights, x.flatten(1)),
    )  # fmt: skip
    exec(images, given)
    made = given["made"]
    assert made.shape == (n, 32, 32, 3)
    assert made.dtype == torch.uint8
    numbers = np.random.default_rng(0).normal(size=(50, 6)) + np.repeat([0, 3], [40, 10])[:, None]
    given = dict(features=numbers, labels=np.repeat(["common", "rare"], [40, 10]), new=numbers[-2:])
    exec(features.replace("model.fit", "shares = model.fit"), given)
    assert given["shares"].shape == (2, 2)
    assert given["model"].n_synthetic_.tolist() == [0, 30]
    assert (given["shares"][:, 1] > 0.5).all()


def test_binders_environment_has_what_notebooks_01_and_02_import_as_locked(root):
    pinned = [line for line in (root / "binder/requirements.txt").read_text().splitlines() if "==" in line]
    assert set(pinned) <= set((root / "requirements.lock").read_text().splitlines())
    there = {re.split("==", line)[0].lower().replace("-", "_") for line in pinned}
    sources = [
        "".join(cell["source"])
        for name in ("01_toy_2d", "02_latent_probe")
        for cell in json.loads((root / f"notebooks/{name}.ipynb").read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    code = closure(root, set().union(*(modules_used(root, source) for source in sources)))
    used = set()
    for source in (*sources, *((root / name).read_text() for name in code)):
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            used |= {name.split(".")[0] for name in names}
    named = {
        "sklearn": "scikit_learn",
        "imblearn": "imbalanced_learn",
        "PIL": "pillow",
        "ruamel": "ruamel.yaml",
    }
    named |= {"IPython": "ipykernel"}
    wanted = {named.get(name, name) for name in used - set(sys.stdlib_module_names) - {"fgsynth"}}
    assert len(wanted) > 15
    assert wanted <= there


def test_files_of_workflows_and_containers_can_be_read(root):
    for path in (root / ".github/workflows").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["jobs"], path
    container = json.loads((root / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].startswith("make env")
    assert os.access(root / "binder/postBuild", os.X_OK)
