"""Studies: several classifiers per method on the same images, their scores, and paired comparisons."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fgsynth.data.benchmark import group_of, strata
from fgsynth.data.images import from_uint8
from fgsynth.data.sources import Source
from fgsynth.evaluate.fid_coverage import density_coverage, fid
from fgsynth.evaluate.metrics import paired_interval
from fgsynth.evaluate.scores import contents, evaluate, flat, to_json
from fgsynth.evaluate.tables import COMPARED, tidy
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.guidance.criteria import entropy
from fgsynth.miniworld import judge
from fgsynth.models.networks import Classifier
from fgsynth.train.predict import refine_and_predict
from fgsynth.train.recipe import Recipe, random_search
from fgsynth.train.run_folder import best, load
from fgsynth.train.train import outputs
from fgsynth.utils import paths
from fgsynth.utils.errors import UserError
from fgsynth.utils.parallel import spread

SecondStage = Callable[[Source, Source | None, Classifier, int], Classifier]
"""`second(real images, synthetic images, trained network, seed) -> network`."""


@dataclass(frozen=True)
class Row:
    """A row of a table: how its classifiers are trained, on which synthetic images, their second stage."""

    recipe: Recipe
    synthetic: SyntheticSet | None = None
    second: SecondStage | None = None


CLIP_BATCH = 256
"""Photographs whose CLIP embeddings are made together."""


@dataclass(frozen=True)
class Scored:
    """A method's classifiers: what each seed predicts of a split, (seeds, n), and its nested scores."""

    method: str
    seeds: tuple[int, ...]
    n_synthetic: int
    predicted: NDArray[np.int64]
    nested: tuple[dict[str, Any], ...]


def scores(exp: Experiment, rows: Mapping[str, Row], seeds: Sequence[int], split: str) -> dict[str, Scored]:
    """Train a classifier per row and seed, and its second stage; evaluate all of them on a split.

    Several at a time, by methods' names. The nested scores are written beside every run.
    """
    for two_stages in (False, True):
        some = [row for row in rows.values() if bool(row.second) == two_stages]
        jobs = [(row.recipe, seed, row.synthetic) for row in some for seed in seeds]
        exp.trainings.train_all(jobs, None if two_stages else split)
    second = _second_stages(exp, {name: row for name, row in rows.items() if row.second}, seeds, split)
    return {name: _scored(exp, name, row, seeds, split, second.get(name)) for name, row in rows.items()}


def _second_stages(
    exp: Experiment, rows: Mapping[str, Row], seeds: Sequence[int], split: str
) -> dict[str, list[NDArray[np.int64]]]:
    """Classes of a split predicted after the second stages, by row and seed."""
    jobs = [(row.recipe, seed, row.synthetic) for row in rows.values() for seed in seeds]
    second = [partial(_refined, row, exp.real, seed) for row in rows.values() for seed in seeds]
    images = exp.trainings.sized(exp.trainings.images(split))
    work = [(exp.trainings.deferred(*job), refine, images) for job, refine in zip(jobs, second, strict=True)]
    bar = f"{exp.bench.manifest.name}, second stages"
    found = iter(spread(refine_and_predict, work, bar, processes=exp.trainings.processes(jobs)))
    return {name: [next(found) for _ in seeds] for name in rows}


def _refined(row: Row, real: Source, seed: int, network: Classifier) -> Classifier:
    made = row.synthetic.images if row.synthetic else None
    return row.second(real, made, network, seed) if row.second else network


def _scored(
    exp: Experiment,
    method: str,
    row: Row,
    seeds: Sequence[int],
    split: str,
    second: Sequence[NDArray[np.int64]] | None,
) -> Scored:
    """Evaluate the predicted classes of a row; second: those after second stages, by seed."""
    folders = [exp.trainings.folder(row.recipe, seed, row.synthetic) for seed in seeds]
    predicted = second or [exp.trainings.predicted(load(folder).network, split, folder) for folder in folders]
    nested = tuple(evaluate(exp.bench, one, split) for one in predicted)
    name = f"scores-{split}-{method}.json" if second else f"scores-{split}.json"
    for folder, one in zip(folders, nested, strict=True):
        paths.write_text(folder / paths.file_name(name), to_json(one))
    n = len(row.synthetic.index) if row.synthetic else 0
    return Scored(method, tuple(seeds), n, np.stack(predicted), nested)


def searched(
    exp: Experiment,
    rows: Mapping[str, Row],
    draws: int,
    rate: Sequence[float],
    batch: Sequence[float],
    seed: int = 0,
) -> dict[str, Row]:
    """Rows with the (learning rate, batch size) of the best average validation accuracy (SubpopBench).

    Of `draws` random draws, the same for every row, one classifier of the seed each. rate: exponents of 10;
    batch: exponents of 2.
    """
    pairs = random_search(draws, exp.seed, (rate[0], rate[1]), (batch[0], batch[1]))
    tried = {
        name: [replace(row.recipe, rate=r, batch=b, select="best_average_val") for r, b in pairs]
        for name, row in rows.items()
    }
    exp.trainings.train_all(
        [(recipe, seed, row.synthetic) for name, row in rows.items() for recipe in tried[name]]
    )
    chosen = {}
    for name, row in rows.items():
        runs = [exp.trainings.train(recipe, seed, row.synthetic) for recipe in tried[name]]
        chosen[name] = replace(row, recipe=tried[name][best(runs)])
    return chosen


def table(scored: Iterable[Scored]) -> pd.DataFrame:
    """One row per method and seed: method, seed, n_synthetic, and every number of the nested scores."""
    rows = [
        {"method": s.method, "seed": seed, "n_synthetic": float(s.n_synthetic), **flat(nested)}
        for s in scored
        for seed, nested in zip(s.seeds, s.nested, strict=True)
    ]
    return pd.DataFrame(rows)


def compare(
    exp: Experiment,
    scored: Mapping[str, Scored],
    pairs: Iterable[tuple[str, str]],
    split: str,
    metrics: Sequence[str] = ("overall", "many", "medium", "few"),
) -> pd.DataFrame:
    """Differences of methods over paired seeds, with 95 % intervals over seeds and images.

    pairs: (method, reference). metrics: a stratum, overall, average_accuracy or worst_group_accuracy.
    Columns as in tables.COMPARED without scale, in points of accuracy. Raises UserError for unequal seeds.
    """  # fmt: skip
    rows = []
    for method, reference in pairs:
        a, b = scored[method], scored[reference]
        if a.seeds != b.seeds:
            raise UserError(f"{method} and {reference} were trained with other seeds: pair them.")
        for metric in metrics:
            hits_a, hits_b, label = _chosen(exp, a, b, split, metric)
            if not len(label):
                continue
            kind: Literal["mean", "worst"] = "worst" if metric == "worst_group_accuracy" else "mean"
            d = paired_interval(hits_a, hits_b, label, statistic=kind)
            name = exp.bench.manifest.name
            rows.append((name, method, reference, metric, d.mean, d.low, d.high, len(a.seeds), split))
    return pd.DataFrame(rows, columns=COMPARED[1:])


def results(exp: Experiment, wide: pd.DataFrame, split: str, selection: str) -> pd.DataFrame:
    """The rows of `table` as tidy results, without `scale`."""
    metrics = [c for c in wide.columns if c not in ("method", "seed")]
    return tidy(wide, metrics, benchmark=exp.bench.manifest.name, split=split, selection=selection)


def contents_of(exp: Experiment, made: SyntheticSet) -> dict[str, float]:
    """Count what a synthetic set shows by the judge of the mini world, which lies beside its generator.

    Nothing where hidden factors are not known, as photographs have no judge.
    """
    if exp.bench.factors is None:
        return {}
    return contents(made.index, readings(exp, made), exp.bench)


def readings(exp: Experiment, made: SyntheticSet) -> pd.DataFrame:
    """Kind, context, mode and style of every image of a synthetic set, by the judge of the mini world."""
    reader = _judge(exp)
    return pd.concat([judge.read(reader, from_uint8(x)) for x in made.blocks()], ignore_index=True)


def quality(exp: Experiment, methods: Mapping[str, Method], per_class: int, k: int = 5) -> pd.DataFrame:
    """FID, density and coverage of equally many images of every class against validation (FG table 4).

    On the embedding of the mini world's judge; of photographs, on that of the generator's CLIP, our choice,
    as the paper names none. One row per method with seed, fid, density, coverage and what the judge counts.
    The sets of a comparison share their seeds.
    """
    features = _features(exp)
    real = features(exp.trainings.images("val"))
    each = np.full(exp.n_classes * len(exp.bench.manifest.contexts), per_class)
    rows = []
    for name, method in methods.items():
        made = exp.synthetic(method, per_group=each)
        fake = features(made.images)
        density, coverage = density_coverage(real, fake, k)
        numbers = {"fid": fid(real, fake), "density": density, "coverage": coverage}
        rows.append({"method": name, "seed": exp.seed, **numbers, **contents_of(exp, made)})
    return pd.DataFrame(rows)


def _features(exp: Experiment) -> Callable[[Source], Tensor]:
    """Function from images to the features (n, k) that they are compared by."""
    if exp.bench.factors is not None:
        reader = _judge(exp)
        return lambda images: outputs(reader, images)[1]
    return lambda images: clip_embeddings(exp.generator, images)


def clip_embeddings(generator: Generator, images: Source) -> Tensor:
    """CLIP's image embeddings by a generator, float32 (n, k) on the CPU; few images are open at a time."""
    parts = [
        generator.clip_embedding([images[int(i)][0] for i in rows]).cpu()
        for rows in torch.arange(len(images)).split(CLIP_BATCH)
    ]
    return torch.cat(parts).float()


def _judge(exp: Experiment) -> Classifier:
    return judge.load(paths.root() / exp.sampling.generator / "judge.safetensors")


def entropy_tells(exp: Experiment, split: str = "val") -> pd.DataFrame:
    """Area under the ROC curve by which the entropy of the guide finds images of a kind.

    On real images; kinds by hidden factors only where these are known. 50 % is chance. Columns kind, auc
    (%), share (%).
    """
    rows, images = exp.bench.manifest.rows(split), exp.trainings.images(split)
    logits, embedding = exp.outputs(exp.guide, images)
    value = entropy(logits, embedding, images.label).numpy()
    few = strata(exp.bench.manifest.counts().numpy())[rows["label"]] == "few"
    kinds = {
        "classified wrongly by the guide": (logits.argmax(1) != images.label).numpy(),
        "class of few training images": few,
    }
    if exp.bench.factors is not None:
        factors = exp.bench.hidden(split)
        kinds |= {
            "rare appearance": (factors["mode"] > 0).to_numpy(),
            "drawing": (factors["style"] == "drawing").to_numpy(),
            "something stands before it": (factors["occlusion"] > 0).to_numpy(),
        }
    found = [(k, 100 * roc_auc_score(is_one, value), 100 * is_one.mean()) for k, is_one in kinds.items()
             if 0 < is_one.mean() < 1]  # fmt: skip
    return pd.DataFrame(found, columns=["kind", "auc", "share"])


def criterion_of(exp: Experiment, made: SyntheticSet, name: str) -> Tensor:
    """A criterion of the guide at every image of a set, (n,), in nats."""
    known = *exp.outputs(exp.guide, made.images), made.images.label
    return exp.criterion(name)(*(part.to(exp.generator.device) for part in known)).cpu()


def entropy_of(exp: Experiment, made: SyntheticSet) -> float:
    """Mean entropy of the guide on a synthetic set, in nats."""
    return float(criterion_of(exp, made, "entropy").mean())


def _chosen(
    exp: Experiment, a: Scored, b: Scored, split: str, metric: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """The hits of both on the images that a metric is about, and the classes or groups it averages over."""
    m, rows = exp.bench.manifest, exp.bench.manifest.rows(split)
    label = rows["label"].to_numpy()
    over = group_of(rows, m).to_numpy() if metric == "worst_group_accuracy" else label
    # Both are over samples; of equally large classes that is the mean over classes, which varies less.
    if metric in ("overall", "average_accuracy") and np.ptp(np.bincount(label)):
        over = np.zeros(len(label), dtype=np.int64)
    chosen = np.ones(len(label), dtype=bool)
    if metric in ("many", "medium", "few"):
        chosen = strata(m.counts().numpy())[label] == metric
    return (a.predicted == label)[:, chosen], (b.predicted == label)[:, chosen], over[chosen]
