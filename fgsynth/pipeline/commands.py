"""Command line: `python -m fgsynth COMMAND`."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

from fgsynth.pipeline.arguments import AMOUNT, COUNT, FILE, FOLDER, WHOLE, Parser, new, there
from fgsynth.utils.errors import UserError, one_line
from fgsynth.utils.paths import home, root

Arguments = argparse.Namespace


def _check_env(_: Arguments) -> None:
    from fgsynth.utils.environment import check

    print(", ".join(f"{name} {version}" for name, version in check().items()))


def _run(a: Arguments) -> None:
    from fgsynth.pipeline.runner import run

    run(a.stage, a.scale)


def _clean(a: Arguments) -> None:
    from fgsynth.pipeline import notebook

    found = sorted(a.notebooks.glob("*.ipynb"))
    if not found:
        raise UserError(f"{a.notebooks} has no notebook (*.ipynb): name the folder that holds them.")
    for path in found:
        notebook.write_clean(path, a.copies / path.name)


def _tidy(a: Arguments) -> None:
    from fgsynth.pipeline import notebook

    for path in a.notebooks:
        notebook.write_clean(path, path, keep_checked=True)


def _params(a: Arguments) -> None:
    from fgsynth.pipeline import effective

    print(effective.table(root(), a.stage, a.scale))


def _check(a: Arguments) -> None:
    from fgsynth.evidence.compare import changes

    found = changes(root(), a.against)
    print(found.text)
    if found.outcomes:
        raise UserError(f"{len(found.outcomes)} outcomes differ from those of {a.against}: see above.")


def _benchmark(a: Arguments) -> None:
    from fgsynth.cost import table5

    print(table5.run(a.out, a.generator, tuple(a.batches), a.half))


def _check_data(a: Arguments) -> None:
    from fgsynth.data.disk import check

    report = check.check_data(a.name, a.root, a.splits)
    print(report.text)
    if not report.ok:
        raise UserError(f"{a.root} is not ready: put right what the report names, then check it again.")


def _predict(a: Arguments) -> None:
    from fgsynth.latent import model_file
    from fgsynth.utils.paths import write_text

    table = model_file.predict(a.classifier, a.images).to_csv(index=False, float_format="%.4f")
    if a.out is None:
        print(table, end="")
    else:
        write_text(home(a.out), table)


def _evening(a: Arguments) -> None:
    from fgsynth.cost import evening

    print("\n".join(evening.left(root())) if a.left else evening.listed(root()))


def _feedback_map(a: Arguments) -> None:
    if a.draw is None:
        from fgsynth.evaluate import phase_map

        phase_map.gather(root())
    else:
        from fgsynth.cost import evening
        from fgsynth.pipeline import mapping

        print(evening.planned(root(), evening.MAP), flush=True)
        mapping.run(root(), a.draw)


def _plan(a: Arguments) -> None:
    from fgsynth.cost import estimate

    print(estimate.run(a.stage, a.scale, gpus=a.gpus, price=a.price, seconds=a.calibrate, half=a.half))


def _synthesise(a: Arguments) -> None:
    from fgsynth.generate.engines import Engine
    from fgsynth.pipeline import making

    engine = Engine(a.engine, a.worker, a.workers, a.actors, a.address, a.price)
    print(making.run(a.stage, engine, guide_only=a.guide))


def _pack(a: Arguments) -> None:
    from fgsynth.pipeline import pack

    print(pack.run(a.targets, a.scale, a.out))


def _true_size(a: Arguments) -> None:
    from fgsynth.cost import true_counts, true_families, true_size

    if a.count or a.families:
        print(true_families.run(a.out) if a.families else true_counts.run(a.out))
        return
    guides = a.classifiers or list(true_size.CLASSIFIERS)
    gradients = a.gradients or list(true_size.GRADIENTS)
    print(true_size.run(a.out, guides, gradients, a.batches, a.steps, precision=a.precision))


def _cards(_: Arguments) -> None:
    from fgsynth.cost import cards, true_families
    from fgsynth.utils.blocks import fill

    fill(root() / "docs" / "cluster.md", cards.blocks(root()))
    fill(root() / "docs" / "generators.md", true_families.blocks(root()))


def _at_root(module: str, function: str) -> Callable[[Arguments], None]:
    """The command that is a function of the project's root alone."""
    return lambda _: getattr(import_module(f"fgsynth.{module}"), function)(root())


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = Parser(prog="python -m fgsynth", description="Stages of the fgsynth pipeline.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Callable[[Arguments], None], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help)
        added.set_defaults(do=do)
        return added

    command("check-env", _check_env, "import the large libraries and print their versions")
    run = command("run", _run, "run a stage's notebook and publish what it makes")
    run.add_argument("stage", help="a stage of a notebook, or one of its draws, as imagenet_lt_2")
    run.add_argument("--scale", help="smoke, mini, evening or paper; else that of params.yaml")
    shown = command("params", _params, "the values a stage runs with, and what sets each")
    shown.add_argument("stage", help="a stage of a notebook, pretrain, feedback_map or variance")
    shown.add_argument("--scale", help="smoke, mini, evening or paper; else that of params.yaml")
    clean = command("clean", _clean, "write copies of a folder's notebooks without outputs and ids")
    clean.add_argument("notebooks", type=FOLDER)
    clean.add_argument("copies", type=partial(new, found=home))
    tidy = command("tidy", _tidy, "clear notebooks in place, but for outputs that are checked")
    tidy.add_argument("notebooks", type=FILE, nargs="+")
    report = _at_root("evidence.report", "build")
    command("report", report, "derive ledger, claims, the site and README.md's numbers")
    check = command("check", _check, "what a run changed: numbers and outcomes beside the committed")
    check.add_argument("--against", default="HEAD", metavar="COMMIT", help="else the newest one")
    pretrain = _at_root("pretrain.train", "pretrain")
    command("pretrain", pretrain, "train the mini unCLIP; goes on where it stopped")
    card = _at_root("pretrain.card", "model_card")
    command("model-card", card, "measure the mini unCLIP and write its card")
    command("manifests", _at_root("pipeline.digests", "write"), "write down the digests of the benchmarks")
    phases = command(
        "feedback-map", _feedback_map, "when feedback helps: a draw of small experiments, or all"
    )
    phases.add_argument("draw", type=WHOLE, nargs="?", help="to make; none: gather those there are")
    components = _at_root("experiments.variance", "measure")
    command("variance", components, "what draws and rounding add to differences; goes on where it stopped")
    cost = command("benchmark", _benchmark, "time every kind of guidance; prints the table and writes it")
    cost.add_argument("--generator", default="data/pretrained/mini-unclip", help="folder or hub id")
    cost.add_argument("--batches", type=COUNT, nargs="+", default=[1, 64], help="images at a time")
    cost.add_argument("--half", action="store_true", help="the denoiser in float16 (on a GPU)")
    cost.add_argument("--out", type=new, default="scratch/benchmark", help="folder for cost.csv and cost.txt")
    predict = command("predict", _predict, "classes of new images, by the classifier that notebook 10 wrote")
    predict.add_argument("classifier", type=FOLDER, help="its folder")
    predict.add_argument("images", type=there, nargs="+", help="files, or folders of them")
    predict.add_argument("--out", help="a CSV file, else the terminal")
    _paper_scale(command)
    return top


def _paper_scale(command: Callable[[str, Callable[[Arguments], None], str], argparse.ArgumentParser]) -> None:
    """The commands for real data, real models and many machines."""
    long = command("evening", _evening, "the stages of scale evening: what each should take, and took")
    long.add_argument("--left", action="store_true", help="the names alone of those that are to be run")
    data = command("check-data", _check_data, "what of a data set is on disk, what is missing or damaged")
    data.add_argument("name", help="imagenet_lt, places_lt, nicopp or folder")
    data.add_argument("--root", type=there, required=True, help="folder of images, or a CSV of them")
    data.add_argument("--splits", type=FOLDER, help="folder of the official lists")
    plan = command("plan", _plan, "what a stage's synthetic sets and classifiers will take")
    plan.add_argument("stage", help="imagenet_lt, places_lt or nicopp")
    plan.add_argument("--scale", help="mini, evening or paper; else that of params.yaml")
    here = "measure on this machine"
    plan.add_argument("--calibrate", type=AMOUNT, default=0.0, metavar="SECONDS", help=here)
    plan.add_argument("--half", action="store_true", help="the denoiser in float16 (on a GPU)")
    plan.add_argument("--gpus", type=COUNT, default=1)
    plan.add_argument("--price", type=AMOUNT, help="of a GPU for an hour")
    make = command("synthesise", _synthesise, "make a stage's synthetic sets ahead of its notebook")
    make.add_argument("stage", help="imagenet_lt, places_lt or nicopp")
    make.add_argument("--engine", default="local", help="local, or ray: all GPUs of a Ray cluster")
    make.add_argument("--worker", type=WHOLE, default=0, help="of the local engine, from 0, in a job array")
    make.add_argument("--workers", type=COUNT, default=1, help="how many share the folder")
    make.add_argument("--guide", action="store_true", help="train the guide and stop")
    make.add_argument("--actors", type=COUNT, help="of the engine ray; else one per GPU, or per core")
    make.add_argument("--address", help="of a Ray cluster; else RAY_ADDRESS or one started here")
    make.add_argument("--price", type=AMOUNT, help="of a worker for an hour; shows what is left to pay")
    pack = command("pack", _pack, "an archive of a scale: synthetic sets, classifiers, ledger, datasheet")
    pack.add_argument("targets", nargs="*", help="stages, or draws of them; else the three benchmarks")
    pack.add_argument("--scale", help="mini, evening or paper; else that of params.yaml")
    pack.add_argument("--out", type=new, default="scratch/pack", help="folder for the archive")
    size = command("true-size", _true_size, "time one guided batch at the published shapes, random weights")
    size.add_argument("--out", type=new, default="scratch/true_size", help="folder for the tables")
    size.add_argument("--count", action="store_true", help="count operations and memory instead, on no GPU")
    size.add_argument("--families", action="store_true", help="the same of SDXL, SD 3.5 and FLUX.1")
    size.add_argument("--classifiers", nargs="+", default=[], help="all, if none is named")
    size.add_argument("--gradients", nargs="+", default=[], help="all, if none is named")
    size.add_argument("--batches", type=COUNT, nargs="+", default=[])
    size.add_argument("--steps", type=COUNT, default=0)
    size.add_argument("--precision", default="bfloat16")
    command("cards", _cards, "write batches, seconds and hours per card into docs/cluster.md")


def main(argv: list[str] | None = None) -> int:
    """Run a command; a user's mistake is one sentence on stderr and exit status 1, a wrong argument 2."""
    from fgsynth.utils.interrupts import Stopped, ending

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A report may name a file that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = parser().parse_args(argv)
        with ending():
            arguments.do(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does; nothing is left to be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Stopped as stopped:
        # Stopped by a signal: a scheduler queues a job again that ends with 0.
        print(f"fgsynth: {stopped}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        print("fgsynth: interrupted; nothing was published, run the stage again.", file=sys.stderr)
        return 128 + (stop.args or (signal.SIGINT,))[0]
    except Exception as error:
        told = _told(error)
        if not told:
            raise
        print(one_line(f"fgsynth: {told}"), file=sys.stderr)
        return 1
    return 0


def _told(error: Exception) -> str:
    """What a user reads of an error that their files or machine cause; nothing of a bug."""
    from json import JSONDecodeError

    from pydantic import ValidationError
    from ruamel.yaml.error import YAMLError

    match error:
        case UserError():
            return str(error)
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}."
        case OSError() | UnicodeError() | JSONDecodeError() | YAMLError() | ValidationError():
            return f"{type(error).__name__}: {error}"
    return ""
