"""Command line: `python -m fgsynth COMMAND`."""

import argparse
import sys
from pathlib import Path

from fgsynth.utils.errors import UserError


def _check_env(_: argparse.Namespace) -> None:
    from fgsynth.utils.environment import check

    print(", ".join(f"{name} {version}" for name, version in check().items()))


def _run(arguments: argparse.Namespace) -> None:
    from fgsynth.pipeline.runner import run

    run(arguments.stage)


def _clean(arguments: argparse.Namespace) -> None:
    from fgsynth.pipeline import notebook
    from fgsynth.utils import paths

    for path in sorted(arguments.notebooks.glob("*.ipynb")):
        paths.write_text(arguments.copies / path.name, notebook.to_text(notebook.clean(notebook.read(path))))


def _tidy(arguments: argparse.Namespace) -> None:
    from fgsynth.pipeline import notebook
    from fgsynth.utils import paths

    for path in arguments.notebooks:
        tidy = notebook.clean(notebook.read(path), keep_checked=True)
        paths.write_text(path, notebook.to_text(tidy))


def _params(arguments: argparse.Namespace) -> None:
    from fgsynth.pipeline import effective
    from fgsynth.utils import paths

    print(effective.table(paths.root(), arguments.stage, arguments.scale))


def _report(_: argparse.Namespace) -> None:
    from fgsynth.evidence import report
    from fgsynth.utils import paths

    report.build(paths.root())


def _pretrain(_: argparse.Namespace) -> None:
    from fgsynth.pretrain.train import pretrain
    from fgsynth.utils import paths

    pretrain(paths.root())


def _model_card(_: argparse.Namespace) -> None:
    from fgsynth.pretrain.card import model_card
    from fgsynth.utils import paths

    model_card(paths.root())


def _feedback_map(_: argparse.Namespace) -> None:
    from fgsynth.experiments.phase_map import draw_map
    from fgsynth.utils import paths

    draw_map(paths.root())


def _manifests(_: argparse.Namespace) -> None:
    from fgsynth.pipeline import digests
    from fgsynth.utils import paths

    digests.write(paths.root())


def _benchmark(arguments: argparse.Namespace) -> None:
    from fgsynth.cost import table5
    from fgsynth.utils import paths

    folder = paths.root() / arguments.out
    print(table5.run(folder, arguments.generator, tuple(arguments.batches), arguments.half))


def _check_data(arguments: argparse.Namespace) -> None:
    from fgsynth.data.disk import check

    report = check.check_data(arguments.name, arguments.root, arguments.splits)
    print(report.text)
    if not report.ok:
        raise SystemExit(1)


def _plan(arguments: argparse.Namespace) -> None:
    from fgsynth.cost import estimate

    a = arguments
    print(estimate.run(a.stage, a.scale, gpus=a.gpus, price=a.price, seconds=a.calibrate, half=a.half))


def _synthesise(arguments: argparse.Namespace) -> None:
    from fgsynth.generate.engines import Engine
    from fgsynth.pipeline import making

    a = arguments
    engine = Engine(a.engine, a.worker, a.workers, a.actors, a.address, a.price)
    print(making.run(a.stage, engine, guide_only=a.guide))


def _true_size(arguments: argparse.Namespace) -> None:
    from fgsynth.cost import true_counts, true_size
    from fgsynth.utils import paths

    a = arguments
    if a.count:
        print(true_counts.run(paths.root() / a.out))
        return
    guides = a.classifiers or list(true_size.CLASSIFIERS)
    gradients = a.gradients or list(true_size.GRADIENTS)
    out = paths.root() / a.out
    print(true_size.run(out, guides, gradients, a.batches, a.steps, precision=a.precision))


def _cards(_: argparse.Namespace) -> None:
    from fgsynth.cost import cards
    from fgsynth.utils import paths
    from fgsynth.utils.blocks import fill

    fill(paths.root() / "docs" / "cluster.md", cards.blocks(paths.root()))


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="python -m fgsynth", description="Stages of the fgsynth pipeline.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("check-env", help="import the large libraries and print their versions").set_defaults(
        do=_check_env
    )
    run = commands.add_parser("run", help="run a stage's notebook and publish what it makes")
    run.add_argument("stage")
    run.set_defaults(do=_run)
    shown = commands.add_parser("params", help="the values a stage runs with, and what sets each")
    shown.add_argument("stage", help="a stage of a notebook, pretrain or feedback_map")
    shown.add_argument("--scale", help="smoke, mini, full or paper; else that of params.yaml")
    shown.set_defaults(do=_params)
    clean = commands.add_parser("clean", help="write copies of a folder's notebooks without outputs and ids")
    clean.add_argument("notebooks", type=Path)
    clean.add_argument("copies", type=Path)
    clean.set_defaults(do=_clean)
    tidy = commands.add_parser("tidy", help="clear notebooks in place, but for outputs that are checked")
    tidy.add_argument("notebooks", type=Path, nargs="+")
    tidy.set_defaults(do=_tidy)
    commands.add_parser(
        "report", help="derive ledger, claims, index.html and README.md's numbers"
    ).set_defaults(do=_report)
    commands.add_parser("pretrain", help="train the mini unCLIP; goes on where it stopped").set_defaults(
        do=_pretrain
    )
    commands.add_parser("model-card", help="measure the mini unCLIP and write its card").set_defaults(
        do=_model_card
    )
    commands.add_parser("manifests", help="write down the digests of the benchmarks").set_defaults(
        do=_manifests
    )
    commands.add_parser(
        "feedback-map", help="where feedback helps: an hour of small experiments; goes on where it stopped"
    ).set_defaults(do=_feedback_map)
    cost = commands.add_parser(
        "benchmark", help="time every kind of guidance; prints the table and writes it"
    )
    cost.add_argument("--generator", default="data/pretrained/mini-unclip", help="folder or hub id")
    cost.add_argument("--batches", type=int, nargs="+", default=[1, 64], help="images at a time")
    cost.add_argument("--half", action="store_true", help="the denoiser in float16 (on a GPU)")
    cost.add_argument("--out", default="scratch/benchmark", help="folder for cost.csv and cost.txt")
    cost.set_defaults(do=_benchmark)
    _paper_scale(commands)
    return top


def _paper_scale(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands for real data, real models and many machines."""
    data = commands.add_parser("check-data", help="what of a data set is on disk, what is missing or damaged")
    data.add_argument("name", help="imagenet_lt, places_lt, nicopp or folder")
    data.add_argument("--root", type=Path, required=True, help="folder of images, or a CSV of them")
    data.add_argument("--splits", type=Path, help="folder of the official lists")
    data.set_defaults(do=_check_data)
    plan = commands.add_parser("plan", help="what a stage's synthetic sets and classifiers will take")
    plan.add_argument("stage", help="imagenet_lt, places_lt or nicopp")
    plan.add_argument("--scale", help="mini, full or paper; else that of params.yaml")
    plan.add_argument(
        "--calibrate", type=float, default=0.0, metavar="SECONDS", help="measure on this machine"
    )
    plan.add_argument("--half", action="store_true", help="the denoiser in float16 (on a GPU)")
    plan.add_argument("--gpus", type=int, default=1)
    plan.add_argument("--price", type=float, help="of a GPU for an hour")
    plan.set_defaults(do=_plan)
    make = commands.add_parser("synthesise", help="make a stage's synthetic sets ahead of its notebook")
    make.add_argument("stage", help="imagenet_lt, places_lt or nicopp")
    make.add_argument("--engine", default="local", help="local, or ray: all GPUs of a Ray cluster")
    make.add_argument("--worker", type=int, default=0, help="of the local engine, from 0, in a job array")
    make.add_argument("--workers", type=int, default=1, help="how many share the folder")
    make.add_argument("--guide", action="store_true", help="train the guide and stop")
    make.add_argument("--actors", type=int, help="of the engine ray; else one per GPU, or per core")
    make.add_argument("--address", help="of a Ray cluster; else RAY_ADDRESS or one started here")
    make.add_argument("--price", type=float, help="of a worker for an hour; shows what is left to pay")
    make.set_defaults(do=_synthesise)
    size = commands.add_parser(
        "true-size", help="time one guided batch at the published shapes, random weights"
    )
    size.add_argument("--out", default="scratch/true_size", help="folder for the tables")
    size.add_argument("--count", action="store_true", help="count operations and memory instead, on no GPU")
    size.add_argument("--classifiers", nargs="+", default=[], help="all, if none is named")
    size.add_argument("--gradients", nargs="+", default=[], help="all, if none is named")
    size.add_argument("--batches", type=int, nargs="+", default=[])
    size.add_argument("--steps", type=int, default=0)
    size.add_argument("--precision", default="bfloat16")
    size.set_defaults(do=_true_size)
    commands.add_parser(
        "cards", help="write batches, seconds and hours per card into docs/cluster.md"
    ).set_defaults(do=_cards)


def main(argv: list[str] | None = None) -> int:
    """Run a command; a user's mistake is one sentence on stderr and exit status 1."""
    arguments = parser().parse_args(argv)
    from fgsynth.utils.interrupts import Stopped

    try:
        arguments.do(arguments)
    except Stopped as stopped:
        # Stopped by a signal: a scheduler queues a job again that ends with 0.
        print(f"fgsynth: {stopped}", file=sys.stderr)
    except UserError as error:
        print(f"fgsynth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fgsynth: interrupted; nothing was published, run the stage again.", file=sys.stderr)
        return 130
    return 0
