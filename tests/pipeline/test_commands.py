"""Every command with every kind of wrong input: one printable sentence, no traceback."""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys

import pytest

from fgsynth.pipeline import arguments
from fgsynth.pipeline.commands import main, parser

(SUBPARSERS,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
COMMANDS = SUBPARSERS.choices
LATIN = "café".encode("latin-1")

NUMBERS = ["x", "", "-1", "nan", "inf", "1e999"]
WRONG = {
    arguments.COUNT: [*NUMBERS, "0", "1.5"],
    arguments.WHOLE: [*NUMBERS, "1.5"],
    arguments.AMOUNT: NUMBERS,
    arguments.there: ["none", "a\nb"],
    arguments.FILE: ["none.ipynb", "notebooks", "latin.txt", "params.yaml", "array.json"],
    arguments.FOLDER: ["none", "params.yaml", "latin.txt"],
    arguments.new: ["params.yaml", "params.yaml/below"],
    "copies": ["params.yaml", "params.yaml/below"],
}
"""By the reader of an argument: what it refuses."""
TEXTS = {
    ("run", "stage"): ["toy", "own_pictures", "a\nb", "\udce9"],
    ("run", "scale"): ["huge"],
    ("params", "stage"): ["toy", "own_pictures", "a\nb"],
    ("params", "scale"): ["huge"],
    ("check", "against"): ["no-such-commit", "a\nb", "\udce9"],
    ("benchmark", "generator"): ["data", "latin.txt"],
    ("check-data", "name"): ["imagenet", "a\nb"],
    ("plan", "stage"): ["toy", "toy_2d"],
    ("plan", "scale"): ["smoke", "huge"],
    ("synthesise", "stage"): ["toy", "toy_2d"],
    ("synthesise", "engine"): ["spark"],
    ("synthesise", "address"): None,  # Ray's own
    ("pack", "targets"): ["toy_2d", "a\nb"],
    ("pack", "scale"): ["smoke", "huge"],
    ("true-size", "classifiers"): ["resnet"],
    ("true-size", "gradients"): ["steep"],
    ("true-size", "precision"): ["float8"],
    ("predict", "out"): ["data"],
}
"""By command and argument: texts that it refuses."""
GIVEN = {"stage": "nicopp", "name": "folder", "root": "data", "notebooks": "notebooks", "copies": "copies",
         "classifier": "classifier", "images": "images.csv", "targets": "nicopp"}  # fmt: skip
"""What stands in the place of the other arguments."""

PARAMS, NOTEBOOK, PAPER = "params.yaml", "notebooks/01_toy_2d.ipynb", "data/paper"
READS = {
    "check-env": [],
    "run": [PARAMS, NOTEBOOK],
    "params": [PARAMS],
    "clean": ["notebooks/04_imagenet_lt.ipynb"],
    "tidy": [NOTEBOOK],
    "report": [f"{PAPER}/tables.yaml", f"{PAPER}/claims.csv", f"{PAPER}/table1_imagenet_lt.csv",
               "reports/mini/toy_2d/results.csv", f"{PAPER}/margins.yaml", "README.md", PARAMS],
    "check": ["reports/mini/toy_2d/results.csv", f"{PAPER}/margins.yaml"],
    "pretrain": [PARAMS],
    "model-card": ["data/pretrained/mini-unclip/training.json"],
    "manifests": [PARAMS, "notebooks/04_imagenet_lt.ipynb"],
    "feedback-map": ["reports/map/rows.csv"],
    "variance": [PARAMS],
    "benchmark": [],
    "check-data": ["images.csv"],
    "evening": [PARAMS, "reports/evening/dvc.yaml"],
    "plan": [PARAMS, "data/work/calibration.json"],
    "synthesise": [PARAMS],
    "pack": [PARAMS],
    "true-size": [],
    "predict": ["classifier/classifier.json"],
    "cards": [PARAMS, "docs/cluster.md", "reports/true_size/work.csv", "docs/generators.md",
              "reports/families/memory.csv"],
}  # fmt: skip
"""The files that a command reads first."""
OPTIONAL = {
    "reports/mini/toy_2d/results.csv",
    "data/work/calibration.json",
    "notebooks/04_imagenet_lt.ipynb",
}
"""They may be absent, for a command."""
ARGUMENTS = {
    "run": ["toy_2d"],
    "params": ["toy_2d"],
    "clean": ["notebooks", "copies"],
    "tidy": [NOTEBOOK],
    "check-data": ["folder", "--root", "images.csv"],
    "plan": ["nicopp"],
    "synthesise": ["nicopp"],
    "predict": ["classifier", "images.csv"],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory, root):
    """What commands read of a checkout, and some files that are nothing of it."""
    folder = tmp_path_factory.mktemp("tree")
    for name in {
        *(file for files in READS.values() for file in files),
        "dvc.yaml",
        "reports/true_size",
        "reports/families",
        "data/splits",
        "data/classnames",
    }:
        source, target = root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy(source, target)
        else:
            target.write_text("path,label\nnone.png,cat\n")
    shutil.copytree(root / PAPER, folder / PAPER, dirs_exist_ok=True)
    (folder / "latin.txt").write_bytes(LATIN)
    (folder / "array.json").write_text("[1]")
    return folder


@pytest.fixture
def refused(tree, monkeypatch, capsys):
    """Runs a command and sees that it ends with one printable sentence."""

    def run(*argv):
        monkeypatch.chdir(tree)
        try:
            status = main(list(argv))
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr().err
        assert status in (1, 2), (status, said)
        assert said.startswith("fgsynth: ")
        assert said.endswith("\n")
        assert said[:-1].isprintable(), said
        assert "Traceback" not in said
        return said

    return run


def wrong_arguments():
    for name, command in COMMANDS.items():
        actions = [a for a in command._actions if a.nargs != 0]
        for action in actions:
            kind = action.dest if action.dest == "copies" else action.type
            values = WRONG[kind] if kind in WRONG else TEXTS[name, action.dest]
            others = [a for a in actions if a is not action and (a.required or not a.option_strings)]
            argv = [part for a in others for part in (*a.option_strings[:1], GIVEN[a.dest])]
            for value in values or ():
                flag = action.option_strings[:1]
                mine = [f"{flag[0]}={value}"] if flag and action.nargs is None else [*flag, value]
                # Positional ones in their order.
                before = [] if flag or [*command._positionals._group_actions].index(action) == 0 else argv
                after = argv if not before else []
                yield pytest.param([name, *before, *mine, *after], id=f"{name} {action.dest} {value!a}")


@pytest.mark.parametrize("argv", wrong_arguments())
def test_a_wrong_argument_is_one_sentence(refused, argv):
    refused(*argv)


@pytest.mark.parametrize("argv", [[], ["nothing"], ["run"], ["params", "toy_2d", "--skale", "mini"]])
def test_a_wrong_command_is_one_sentence(refused, argv):
    refused(*argv)


@contextlib.contextmanager
def damaged(path, how):
    data = path.read_bytes()
    path.unlink()
    match how:
        case "a folder":
            path.mkdir()
        case "latin-1":
            path.write_bytes(LATIN + b"\n" + data)
        case "another type":
            path.write_text("[1]\n")
        case "no text":
            path.write_bytes(bytes(range(256)))
    try:
        yield
    finally:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(data)


def test_every_command_has_its_files():
    assert READS.keys() == COMMANDS.keys()


def damages():
    for name, files in READS.items():
        for file in files:
            yield from ((name, file, how) for how in ("a folder", "latin-1", "no text"))
            if file not in OPTIONAL:
                yield name, file, "missing"
            if not file.endswith(".md"):
                yield name, file, "another type"


@pytest.mark.parametrize(("name", "file", "how"), damages())
def test_a_damaged_file_is_named(refused, tree, name, file, how, monkeypatch):
    # `variance` refuses other processors before it reads anything.
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    with damaged(tree / file, how):
        said = refused(name, *ARGUMENTS.get(name, []))
    assert file.rpartition("/")[2] in said or "reports/true_size has no counts" in said


def test_what_libraries_raise_is_told_and_a_bug_shows_where_it_is(refused, monkeypatch, tree):
    def report(error):
        def build(_):
            raise error

        monkeypatch.setattr("fgsynth.evidence.report.build", build)
        return refused("report")

    assert (
        report(PermissionError(13, "Permission denied", "/data/x"))
        == "fgsynth: /data/x: Permission denied.\n"
    )
    assert "no such\\x07 thing" in report(OSError("no such\a\n thing")).replace("  ", " ")
    assert "utf-8" in report(UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"))
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError("a bug"))


def test_a_reader_that_has_seen_enough_ends_a_command_silently(root):
    code = "from fgsynth.pipeline import commands; import sys; sys.exit(commands.main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "params", "toy_2d"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_ends_every_command_even_in_the_background_of_a_script(root, number, ignored):
    """There a shell has SIGINT ignored."""
    code = (
        "import sys, time; from fgsynth.pipeline import commands\n"
        "commands._check_env = lambda _: (print('begun', flush=True), time.sleep(60))\n"
        "sys.exit(commands.main(['check-env']))"
    )
    kind = signal.SIG_IGN if ignored else signal.SIG_DFL
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, kind),
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said == "fgsynth: interrupted; nothing was published, run the stage again.\n"
