"""The pipeline itself, in a copy of the tree at scale smoke: DVC, papermill and git for real."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from fgsynth.config.blocks import read
from fgsynth.config.names import PLANE_FG
from fgsynth.config.stages import NOTEBOOKS

ENVIRONMENT = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}  # noqa: PTH120


def run(folder, *command):
    environment = ENVIRONMENT | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def dvc(folder, *arguments):
    return run(folder, sys.executable, "-m", "dvc", *arguments)


def ran(process):
    """The stages that DVC ran, in order."""
    return re.findall(r"Running stage '([^']+)'", process.stdout)


TOY = "reports/smoke/toy_2d/results.csv"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, root):
    """A clone of what git would commit, at scale smoke, run once.

    What the notebooks made before at that scale is found again by its contents, which saves minutes.
    """
    folder = tmp_path_factory.mktemp("clone")
    files = run(root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    for name in filter(None, files.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((root / name).read_bytes())
    if (root / "data" / "work").is_dir():
        shutil.copytree(root / "data" / "work", folder / "data" / "work")
    text = (folder / "params.yaml").read_text()
    for before, now in (
        ("scale: mini", "scale: smoke"),
        ("latent_probe: {}", "latent_probe: {seeds: 2, sets: [digits_lt, imagenet_lt_features]}"),
        # The quickest stage, for what needs one to run again and again.
        ("toy_2d: {}", "toy_2d: {seeds: 2, n_points: 500, n_samples: 300, updates: 200}"),
    ):
        assert before in text
        text = text.replace(before, now, 1)
    (folder / "params.yaml").write_text(text)
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.email", "test@example.org"],
        ["git", "config", "user.name", "test"],
        ["git", "add", "."],
        ["git", "commit", "-qm", "clone"],
    ):
        assert run(folder, *command).returncode == 0
    first = dvc(folder, "repro")
    assert first.returncode == 0, first.stdout + first.stderr
    order = ran(first)
    # DVC's order of what does not depend on each other is not ours.
    assert sorted(order) == sorted([*NOTEBOOKS, "clean", "report"])
    assert (order[0], order[-1]) == ("clean", "report")
    assert order.index("imagenet_lt") < order.index("ablations")
    return folder


def test_a_second_repro_does_nothing_and_git_sees_no_rest(pipeline):
    second = dvc(pipeline, "repro")
    assert second.returncode == 0
    assert ran(second) == []
    assert "up to date" in second.stdout
    untracked = run(pipeline, "git", "status", "--porcelain", "--untracked-files=all").stdout
    assert [line for line in untracked.splitlines() if line.startswith("??")] == []


def test_smoke_results_stand_beside_the_committed_ones(pipeline):
    rows = (pipeline / "reports" / "results.csv").read_text()
    assert f"\nsmoke,toy_2d,{PLANE_FG['entropy']}," in rows
    assert f"\nmini,toy_2d,{PLANE_FG['entropy']}," in rows
    assert run(pipeline, "git", "diff", "--quiet", "--", "reports/mini").returncode == 0
    # What is shown is the larger scale.
    assert "scale mini" in (pipeline / "reports" / "site" / "claims.html").read_text()


def test_running_and_saving_in_jupyterlab_makes_nothing_stale(pipeline):
    path = pipeline / "notebooks" / "01_toy_2d.ipynb"
    original = path.read_bytes()
    executed = run(
        pipeline,
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--inplace",
        str(path),
    )
    assert executed.returncode == 0, executed.stderr
    notebook = nbformat.read(path, as_version=4)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"saved-{i}"
    nbformat.write(notebook, path)
    assert path.read_bytes() != original
    assert ran(dvc(pipeline, "repro")) == ["clean"]
    notebook.cells[-1].source += " Changed."
    nbformat.write(notebook, path)
    assert ran(dvc(pipeline, "repro", "--dry", "toy_2d")) == ["clean"]
    assert dvc(pipeline, "repro", "clean").returncode == 0
    assert ran(dvc(pipeline, "repro", "--dry", "toy_2d")) == ["toy_2d"]
    path.write_bytes(original)
    back = dvc(pipeline, "repro")
    assert back.returncode == 0
    assert "toy_2d" not in ran(back)


def test_metrics_and_plots_are_declared(pipeline):
    shown = json.loads(dvc(pipeline, "metrics", "show", "--json").stdout)[""]["data"]
    assert shown["reports/report.json"]["data"]["pieces not run"] >= 1
    assert "minority_share_gain" in shown["reports/smoke/toy_2d.json"]["data"]
    plots = dvc(pipeline, "plots", "show", "--json")
    assert plots.returncode == 0, plots.stderr
    drawn = json.loads(plots.stdout)["data"]
    assert len(drawn) == 8
    assert all(entries and all(entry.get("type") for entry in entries) for entries in drawn.values())


def test_an_experiment_changes_a_parameter_and_reruns_what_depends_on_it(pipeline):
    experiment = dvc(pipeline, "exp", "run", "-S", "smoke.toy_2d.seeds=3", "--name", "more-seeds")
    assert experiment.returncode == 0, experiment.stdout + experiment.stderr
    assert ran(experiment) == ["toy_2d", "report"]
    assert ",2002,minority_share," in (pipeline / TOY).read_text()
    restored = dvc(pipeline, "exp", "run", "-S", "smoke.toy_2d.seeds=2")
    assert restored.returncode == 0, restored.stdout + restored.stderr


def test_a_misspelt_parameter_is_one_sentence(pipeline):
    params, before = pipeline / "params.yaml", (pipeline / TOY).read_bytes()
    text = params.read_bytes()
    wrong = dvc(pipeline, "exp", "run", "-S", "+smoke.toy_2d.sedes=3")
    assert wrong.returncode != 0
    assert "does not declare the parameter 'sedes'" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stdout + wrong.stderr
    assert (pipeline / TOY).read_bytes() == before
    params.write_bytes(text)
    assert ran(dvc(pipeline, "repro")) == []


def test_a_missing_file_of_printed_numbers_is_one_sentence(pipeline):
    table = pipeline / "data" / "paper" / "table1_imagenet_lt.csv"
    text = table.read_bytes()
    table.unlink()
    wrong = dvc(pipeline, "repro")
    assert wrong.returncode != 0
    assert "table1_imagenet_lt.csv is missing: restore it" in wrong.stdout + wrong.stderr
    table.write_bytes(text)
    assert dvc(pipeline, "repro").returncode == 0


def test_an_interrupted_repro_loses_nothing_and_the_next_one_completes(pipeline, listening):
    results = pipeline / TOY
    before = results.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "toy_2d"],
        cwd=pipeline, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=listening,
    )  # fmt: skip
    staging = pipeline / ".staging" / "toy_2d"
    deadline = time.monotonic() + 60
    while not staging.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert staging.exists()
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert results.read_bytes() == before
    again = dvc(pipeline, "repro", "--force", "--single-item", "toy_2d")
    assert again.returncode == 0, again.stdout + again.stderr
    assert results.read_bytes() == before
    assert not staging.exists()


def test_what_is_committed_is_what_was_run(root):
    """No stage whose code, notebook, parameters or reports differ from dvc.lock.

    Only DVC's own cache may be absent, as it is on a fresh clone.
    """
    status = dvc(root, "status", "--json")
    assert status.returncode == 0, status.stderr
    stale, evening = {}, read(root / "reports" / "evening" / "dvc.lock")["stages"]
    for name, changes in json.loads(status.stdout).items():
        file, _, stage = name.rpartition(":")
        if file and stage not in evening:
            continue  # not run yet
        files = {}
        for change in changes:
            # Hours of runs are not made anew at every change of code.
            for kind in ("changed outs",) if file else ("changed deps", "changed outs"):
                files |= change.get(kind, {}) if isinstance(change, dict) else {}
        cached = [f for f in files if f.startswith(("data/runs/", "data/notebooks"))]
        absent = {f for f in cached if files[f] in ("deleted", "not in cache")}
        if set(files) - absent or any(not isinstance(change, dict) for change in changes):
            stale[stage] = changes
    assert stale == {}
    lock = (root / "dvc.lock").read_text()
    assert all(
        f"  {stage}:" in lock
        for stage in (
            *NOTEBOOKS,
            "pretrain",
            "model_card",
            "feedback_map",
            "variance",
            "benchmark",
            "report",
        )
    )
