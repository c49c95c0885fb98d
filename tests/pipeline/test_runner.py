import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from dvc.utils.serialize import dump_yaml
from nbformat.v4 import new_code_cell, new_notebook

from fgsynth.config import params
from fgsynth.config.blocks import read
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.pipeline import commands as cli
from fgsynth.pipeline import runner
from fgsynth.utils.errors import UserError

NOTEBOOK = nbformat.read(Path(__file__).parents[2] / "notebooks/02_latent_probe.ipynb", as_version=4)
(PARAMETERS,) = (c.source for c in NOTEBOOK.cells if "parameters" in c.metadata.get("tags", []))
WRITES = """import pandas as pd
import matplotlib.pyplot as plt
from fgsynth.evaluate.output import Output
out = Output("latent_probe", scale, reports, runs)
rows = pd.DataFrame([dict(method="ERM", seed=s, metric="few", value=s, split="test", selection="none",
                          benchmark="latent_probe") for s in range(seeds)])
out.results(rows)
out.metrics({"few": 1.0})
out.figure("f", plt.figure(figsize=(1, 1)), rows, "A caption.", "alt")
out.run_file("r.txt").write_text(scale)"""


def put(checkout, *cells):
    first, *rest = cells
    parameters = new_code_cell(first, metadata={"tags": ["parameters"]})
    path = checkout / "notebooks" / "02_latent_probe.ipynb"
    nbformat.write(new_notebook(cells=[parameters, *map(new_code_cell, rest)]), path)


def set_params(checkout, smoke=None, **changes):
    path = checkout / "params.yaml"
    raw = read(path)
    dump_yaml(path, raw | changes | {"smoke": raw["smoke"] | (smoke or {})})


def published(checkout):
    folders = (checkout / "reports", checkout / "data" / "runs")
    return {
        str(p.relative_to(checkout)): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()
    }


@pytest.fixture
def small(checkout):
    set_params(checkout, scale="smoke")
    put(checkout, PARAMETERS, WRITES)
    return checkout


def test_a_run_publishes_everything_and_twice_gives_the_same_bytes(small):
    runner.run("latent_probe")
    first = published(small)
    assert sorted(first) == [
        "data/runs/smoke/latent_probe/r.txt",
        "reports/smoke/latent_probe.json",
        "reports/smoke/latent_probe/02_latent_probe.ipynb",
        "reports/smoke/latent_probe/figures/f.csv",
        "reports/smoke/latent_probe/figures/f.svg",
        "reports/smoke/latent_probe/results.csv",
        "reports/smoke/latent_probe/run.json",
    ]
    runner.run("latent_probe")
    again, took = published(small), "reports/smoke/latent_probe/run.json"
    assert again | {took: b""} == first | {took: b""}
    assert json.loads(again[took])["commit"] == ""  # no clone
    assert 0 < json.loads(again[took])["seconds"] < 60
    assert not (small / runner.STAGING / "latent_probe").exists()
    assert not (small / "scratch").exists()


def test_the_commit_that_ran_is_told_and_whether_its_code_was_changed(small):
    def git(*command):
        done = subprocess.run(["git", *command], cwd=small, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert runner.checked_out(small) == ""
    git("init", "-q")
    assert runner.checked_out(small) == ""  # nothing was committed
    (small / ".gitignore").write_text("data/work\n")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all")
    head = git("rev-parse", "HEAD")
    for other in ("reports/results.csv", "data/work/x", "README.md"):
        (small / other).parent.mkdir(parents=True, exist_ok=True)
        (small / other).write_text("not code")
    assert runner.checked_out(small) == head
    inside = small / "unpacked"
    inside.mkdir()
    assert runner.checked_out(inside) == ""  # of another repository
    for changed in ("fgsynth/new.py", "params.yaml"):
        before = (small / changed).read_bytes() if (small / changed).exists() else None
        (small / changed).write_text("# changed\n")
        assert runner.checked_out(small) == f"{head}-dirty"
        (small / changed).unlink() if before is None else (small / changed).write_bytes(before)
    assert runner.checked_out(small) == head


COMPARES = """pair = dict(method="ERM", reference="IRM", metric="few", mean=1.0, low=0.5, high=1.5,
            seeds=seeds, benchmark="latent_probe", split="test")
out.comparisons(pd.DataFrame([pair]))"""


def test_comparisons_are_published_where_a_notebook_made_some(small):
    put(small, PARAMETERS, WRITES, COMPARES)
    runner.run("latent_probe")
    path = small / "reports/smoke/latent_probe/comparisons.csv"
    assert path.read_text().splitlines() == [
        "scale,benchmark,method,reference,metric,mean,low,high,seeds,split",
        "smoke,latent_probe,ERM,IRM,few,1,0.5,1.5,2,test",
    ]
    assert len(published(small)) == 8
    others = [small / f"reports/{of}/comparisons.csv" for of in ("smoke/nicopp", "mini/latent_probe")]
    for other in others:
        other.parent.mkdir(parents=True)
        other.write_text("of another stage or scale")
    put(small, PARAMETERS, WRITES)
    runner.run("latent_probe")
    assert not path.exists()  # what an earlier run compared is not left beside new results
    assert {other.read_text() for other in others} == {"of another stage or scale"}


def test_injected_parameters_reach_the_notebook(small):
    set_params(small, smoke={"latent_probe": {"seeds": 5}})
    runner.run("latent_probe")
    assert (small / "reports/smoke/latent_probe/results.csv").read_text().count("\nsmoke,") == 5


def test_a_part_of_a_stage_is_run_and_published_under_its_own_name(small):
    told = "out.run_file('part.txt').write_text(f'{benchmarks} {draw}')"
    put(small, f'{PARAMETERS}\nbenchmarks = ["imagenet_lt", "nicopp"]\ndraw = 0', WRITES, told)
    for target, part in {"_nicopp_2": "['nicopp'] 2", "_1": "['imagenet_lt', 'nicopp'] 1"}.items():
        runner.run(f"latent_probe{target}")
        made = small / f"data/runs/smoke/latent_probe{target}/part.txt"
        assert made.read_text() == part
        assert (small / f"reports/smoke/latent_probe{target}/results.csv").is_file()


@pytest.mark.parametrize(
    ("target", "part"), [("latent_probe_2", "draw"), ("latent_probe_nicopp", "benchmarks")]
)
def test_a_stage_without_such_parts_says_so(small, target, part):
    with pytest.raises(UserError, match=f"has no parameter '{part}': run 'latent_probe' itself"):
        runner.run(target)
    assert not (small / "reports/smoke" / target).exists()


def test_a_notebook_that_raises_keeps_the_earlier_results(small, capsys):
    runner.run("latent_probe")
    before = published(small)
    put(small, PARAMETERS, WRITES, "raise ValueError('no\\nluck')")
    assert cli.main(["run", "latent_probe"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "fgsynth: notebooks/02_latent_probe.ipynb raised ValueError: no luck; nothing was"
    )
    kept = small / ".staging/latent_probe/02_latent_probe.failed.ipynb"
    assert str(kept.relative_to(small)) in error
    assert "no\\nluck" in kept.read_text()
    assert published(small) == before


def test_a_kernel_that_dies(small, capsys):
    put(small, PARAMETERS, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert cli.main(["run", "latent_probe"]) == 1
    assert "raised Kernel died" in capsys.readouterr().err
    assert published(small) == {}


def test_an_environment_without_a_kernel(small, monkeypatch):
    from jupyter_client import kernelspec

    monkeypatch.setattr(kernelspec.KernelSpecManager, "ensure_native_kernel", False)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(small))
    monkeypatch.setattr(kernelspec.KernelSpecManager, "find_kernel_specs", lambda self: {})
    monkeypatch.setattr(kernelspec.KernelSpecManager, "_find_spec_directory", lambda self, name: None)
    with pytest.raises(UserError, match="No Jupyter kernel 'python3'"):
        runner.run("latent_probe")


def test_a_notebook_that_writes_nothing(small):
    put(small, PARAMETERS, "1 + 1")
    with pytest.raises(UserError, match=r"ended without writing reports/latent_probe/results\.csv"):
        runner.run("latent_probe")
    assert published(small) == {}


@pytest.mark.parametrize(
    ("cell", "smoke", "sentence"),
    [
        (PARAMETERS, {"seed": 2}, "does not declare the parameter 'seed'"),
        (PARAMETERS + "\nextra = 1", {}, "unknown key 'extra'"),
        (PARAMETERS, {"seeds": "two"}, "key 'seeds' is 'two'"),
        (PARAMETERS.rsplit("\n", 1)[0], {}, "key 'per_class' is missing"),
        (PARAMETERS.replace("runs =", "run ="), {}, "does not declare runs"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(small, cell, smoke, sentence):
    put(small, cell, "raise SystemError('ran')")
    set_params(small, smoke={"latent_probe": smoke})
    with pytest.raises(UserError, match=sentence):
        runner.run("latent_probe")


def test_a_notebook_without_a_parameters_cell(small):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), small / "notebooks/02_latent_probe.ipynb")
    with pytest.raises(UserError, match="has 0 cells tagged 'parameters'"):
        runner.run("latent_probe")


def test_a_reports_folder_that_cannot_be_written(small):
    (small / "reports").write_text("a file is in the way")
    with pytest.raises(UserError, match=r"Cannot write into .*reports"):
        runner.run("latent_probe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_reports_folder(small):
    (small / "reports").mkdir(mode=0o555)
    with pytest.raises(UserError, match="make the folder writable"):
        runner.run("latent_probe")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_publishes_nothing_and_the_next_one_is_whole(small, root, listening, number):
    busy = "import os, pathlib\npathlib.Path('kernel').write_text(str(os.getpid()))\nwhile True: pass"
    put(small, PARAMETERS, WRITES, busy)
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "fgsynth", "run", "latent_probe"]
    process = subprocess.Popen(
        command, cwd=small, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    )
    kernel = small / "kernel"
    deadline = time.monotonic() + 60
    while not (kernel.exists() and kernel.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (small / ".staging/latent_probe/data/runs/latent_probe/r.txt").exists()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not Path("/proc", kernel.read_text()).exists()  # it does not compute on
    assert error.strip().splitlines()[-1] == (
        "fgsynth: interrupted; nothing was published, run the stage again."
    )
    assert published(small) == {}
    put(small, PARAMETERS, WRITES)
    runner.run("latent_probe")
    assert len(published(small)) == 7


def test_unknown_stage(capsys):
    assert cli.main(["run", "toy"]) == 1
    assert "No stage 'toy': choose one of toy_2d, latent_probe" in capsys.readouterr().err


def test_every_stage_with_parameters_has_a_notebook():
    assert set(NOTEBOOKS) == set(params.Stages.model_fields)
