import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from fgsynth.guidance.schedule import Schedule

os.environ["FGSYNTH_QUIET"] = "1"
os.environ["FGSYNTH_CACHE"] = tempfile.mkdtemp()
atexit.register(shutil.rmtree, os.environ["FGSYNTH_CACHE"], ignore_errors=True)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def listening():
    """`preexec_fn` of children to be interrupted: a background test run ignores SIGINT, and so would they."""
    return lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def schedule() -> Schedule:
    return Schedule.from_scheduler(DDIMScheduler(clip_sample=False), 30)


@pytest.fixture
def network():
    """A smooth nonlinear network of (z, t) in float64."""
    g = torch.Generator().manual_seed(0)
    w = torch.randn(3, 3, generator=g, dtype=torch.double) / 2

    def forward(z, t):
        return torch.tanh(z @ w + t / 1000)

    return forward


@pytest.fixture
def classifier():
    g = torch.Generator().manual_seed(1)
    w = torch.randn(3, 4, generator=g, dtype=torch.double)
    return lambda x: (torch.sin(x) @ w, x)


@pytest.fixture
def checkout(tmp_path, root, monkeypatch) -> Path:
    """A small copy of the tree to break: sources and printed numbers, no results."""
    for name in ("fgsynth", "notebooks", "data/paper"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("scratch", "__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "README.md"):
        shutil.copy(root / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
