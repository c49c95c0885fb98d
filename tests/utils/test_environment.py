import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
import yaml

from fgsynth.pipeline.commands import main
from fgsynth.utils import environment
from fgsynth.utils.errors import UserError

PIN = re.compile(r"([A-Za-z0-9_.\-]+)==([A-Za-z0-9_.!]+)( ; platform_system == \"Linux\")?")


@pytest.fixture(scope="module")
def lock(root):
    lines = [line for line in (root / "requirements.lock").read_text().splitlines() if line[:1] != "#"]
    matches = [PIN.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {m[1].lower().replace("_", "-"): m[2] for m in matches}


def test_conda_and_pip_install_the_lock_and_nothing_else(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert "dependencies" in project["project"]["dynamic"]
    assert "dependencies" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.lock"]}
    conda = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert pip == [["-r requirements.lock", "-e ."]]
    names = {re.split(r"[=<>]", entry)[0] for entry in conda if isinstance(entry, str)}
    assert names == {"python", "pip", "git", "make"}


def test_everything_asked_for_is_locked(root, lock):
    wanted = [line for line in (root / "requirements.in").read_text().splitlines() if line[:1] != "#"]
    assert all(re.fullmatch("[a-z0-9.-]+", line) for line in wanted)
    assert set(wanted) <= set(lock)


def test_this_environment_is_the_locked_one(lock):
    for name in ("torch", "torchvision", "diffusers", "transformers", "timm", "pandas", "papermill", "dvc"):
        assert version(name).split("+")[0] == lock[name], name


def test_torch_and_torchvision_are_a_pair(lock):
    minor = int(lock["torch"].split(".")[1])
    assert lock["torchvision"].split(".")[1] == str(minor + 14)  # 2.0 goes with 0.15


def test_make_calls_tools_as_modules(root):
    lines = re.findall(r"^\t.*", (root / "Makefile").read_text(), re.MULTILINE)
    tools = r"\b(dvc|pytest|ruff|mypy|jupyterlab|pip)\b"
    calls = [line for line in lines if re.search(tools, line)]
    assert len(calls) >= 8
    assert all(re.search(rf"-m {tools}", line) for line in calls)


def test_the_lock_names_no_address(root):
    for name in ("requirements.lock", "requirements.in", "environment.yml", "pyproject.toml"):
        assert not re.search(r"https?://|index-url|find-links", (root / name).read_text()), name


def test_check_env_prints_versions(capsys):
    assert main(["check-env"]) == 0
    assert f"torch {version('torch')}" in capsys.readouterr().out


def test_a_library_that_does_not_import_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "mismatched.py").write_text(
        "raise RuntimeError('operator torchvision::nms\\ndoes not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        environment.check(("mismatched",))
    assert "'import mismatched' fails (RuntimeError: operator torchvision::nms does not exist)" in str(
        caught.value
    )
    assert "make env" in str(caught.value)


@pytest.mark.parametrize(("value", "pinned"), [("1", True), ("0", False), (None, False)])
def test_the_portable_mode_pins_instructions_before_torch_computes(value, pinned):
    code = (
        "import fgsynth, os, torch;"
        "print(os.environ.get('ONEDNN_MAX_CPU_ISA'), torch.backends.cpu.get_cpu_capability())"
    )
    names = {environment.PORTABLE, *environment.INSTRUCTIONS}
    plain = {k: v for k, v in os.environ.items() if k not in names}
    given = plain | ({environment.PORTABLE: value} if value else {})
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    isa, capability = done.stdout.split()
    assert isa == ("AVX2" if pinned else "None")
    assert not pinned or capability in ("AVX2", "DEFAULT")  # DEFAULT: a processor without it
