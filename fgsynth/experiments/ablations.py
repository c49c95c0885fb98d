"""Sampler ablations in the mini world: one real long-tailed set, one guide, many ways to sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fgsynth.data.images import from_uint8
from fgsynth.generate.generator import NO_DROPOUT, Dropout, Generator
from fgsynth.generate.synthesise import Feedback, Plan, Synthetic, synthesise
from fgsynth.guidance.criteria import CRITERIA, Criterion, Hardness
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.miniworld.judge import read
from fgsynth.miniworld.kinds import CLASSES
from fgsynth.miniworld.render import render
from fgsynth.miniworld.world import BENCHMARK, sample
from fgsynth.models.networks import Classifier
from fgsynth.train.classify import embed, train_erm
from fgsynth.utils.errors import UserError
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator as seeded
from fgsynth.utils.seeds import stable_seed

NAMES = list(CLASSES)


@dataclass(frozen=True)
class RealSet:
    """A long-tailed draw: factors, images (n, 32, 32, 3) uint8, label (n,), counts (c,)."""

    factors: pd.DataFrame
    images: Tensor
    label: Tensor
    counts: Tensor


def long_tail(n_max: int, n_min: int, seed: int) -> RealSet:
    """Exponentially falling class counts from n_max to n_min (Cui et al. 2019), classes in drawn order."""
    share = torch.linspace(0, 1, len(NAMES), dtype=torch.float64)
    falling = (n_max * (n_min / n_max) ** share).round().long()
    counts = falling[torch.randperm(len(NAMES), generator=seeded("long tail", seed)).argsort()]
    label = torch.repeat_interleave(torch.arange(len(NAMES)), counts)
    seeds = [stable_seed("long tail", seed, i) for i in range(len(label))]
    factors = sample(seeds, [NAMES[y] for y in label.tolist()])
    return RealSet(factors, torch.from_numpy(render(factors)), label, counts)


@dataclass(frozen=True)
class World:
    """What sampling needs; embedding: CLIP's, of the real images."""

    generator: Generator
    judge: Classifier
    real: RealSet
    guide: Classifier
    criteria: Mapping[str, Criterion]
    embedding: Tensor
    seed: int


def world(generator: Generator, judge: Classifier, n_max: int, n_min: int, updates: int, seed: int) -> World:
    """Draws the real set of a seed and trains its guide, by ERM on that imbalanced set (FG step 1)."""
    real = long_tail(n_max, n_min, seed)
    x = from_uint8(real.images)
    network = train_erm(x, real.label, len(NAMES), updates, seed)
    hardness = Hardness.fit(embed(network, x)[1], real.label, len(NAMES))
    embedding = generator.clip_embedding(list(real.images))
    return World(generator, judge, real, network, {**CRITERIA, "hardness": hardness}, embedding, seed)


@dataclass(frozen=True)
class Arm:
    """One way to sample; `criterion` None is without feedback."""

    name: str
    image: bool = True
    dropout: Dropout = NO_DROPOUT
    criterion: str | None = None
    guidance: Guidance = field(default_factory=Guidance)


@dataclass(frozen=True)
class Asking:
    """What every arm is asked for alike: labels, one image each, and the settings of the generator."""

    label: Tensor
    cfg: float
    cfg_text: float
    noise_level: int


def plan(w: World, asked: Asking, arm: Arm) -> Plan:
    """Prompt: the class's name; condition: a real image of the class, drawn by the sample's own seed."""
    seeds = [stable_seed("ablations", w.seed, int(y), i) for i, y in enumerate(asked.label)]
    if arm.image:
        shown = w.embedding[
            [conditioning_row(w.real, int(y), s) for y, s in zip(asked.label, seeds, strict=True)]
        ]
        image = w.generator.condition_image(shown, seeds, arm.dropout, asked.noise_level)
    else:
        image = w.generator.no_image(len(seeds))
    return Plan([NAMES[y] for y in asked.label.tolist()], image, asked.label, seeds)


def conditioning_row(real: RealSet, label: int, seed: int) -> int:
    """A real image of the class, drawn with replacement by the sample's seed (FG step 2)."""
    rows = torch.nonzero(real.label == label)[:, 0]
    if not len(rows):
        raise UserError(f"Class '{NAMES[label]}' has no real image to condition on: sample it by text only.")
    return int(rows[torch.randint(len(rows), (), generator=seeded("condition", seed))])


def run(w: World, asked: Asking, arm: Arm) -> tuple[pd.DataFrame, Synthetic]:
    """One row per image: what the judge reads and the guide's criteria; and the images.

    Columns: arm, seed, wanted, kind, context, mode, style, recognised, each criterion at the finished
    image, non_finite.
    """
    feedback = None
    if arm.criterion is not None:
        feedback = Feedback(w.guide, {arm.criterion: w.criteria[arm.criterion]}, len(NAMES), arm.guidance)
    cfg = asked.cfg if arm.image else asked.cfg_text
    out = synthesise(w.generator, plan(w, asked, arm), cfg, feedback)
    return readings(w, asked.label, out.images, arm.name).assign(non_finite=out.non_finite.numpy()), out


def readings(w: World, label: Tensor, images: Tensor, arm: str) -> pd.DataFrame:
    """What judge and guide say of images (n, h, w, 3) asked for by label: the columns of `run`."""
    x = from_uint8(images)
    table = read(w.judge, x)
    logits, embedding = embed(w.guide, x)
    for name, criterion in w.criteria.items():
        table[name] = criterion(logits, embedding, label).numpy()
    table["wanted"] = [NAMES[y] for y in label.tolist()]
    table["recognised"] = table["kind"] == table["wanted"]
    return table.assign(arm=arm, seed=w.seed, non_finite=0)


def real_arm(w: World, label: Tensor, name: str) -> pd.DataFrame:
    """As many fresh real images of the same classes: what a set of this size would score at best."""
    seeds = [stable_seed("real arm", w.seed, i) for i in range(len(label))]
    factors = sample(seeds, [NAMES[y] for y in label.tolist()])
    return readings(w, label, torch.from_numpy(render(factors)), name)


def rarest(real: RealSet, n: int) -> Tensor:
    """The n classes with the fewest real images."""
    return real.counts.argsort(stable=True)[:n]


def summary(table: pd.DataFrame) -> pd.Series:
    """One arm and seed in numbers, percentages unless said otherwise.

    rare_share: images that show their class in a rare appearance. distance: total variation between the
    shares of (right kind, mode, style) here and in the real world; a finite set of real images is not at
    0 either, see `real_arm`. covered: hidden-factor combinations (class, mode, context, style) among the
    recognised images, a count.
    """
    seen = table[table["recognised"]]
    made = pd.Series(list(zip(table["recognised"], table["mode"], table["style"], strict=True)))
    shares = pd.concat([made.value_counts(normalize=True), NATURAL], axis=1).fillna(0)
    return pd.Series(
        {
            "recognised": 100 * table["recognised"].mean(),
            "rare_share": 100 * (table["recognised"] & (table["mode"] > 0)).mean(),
            "photographs": 100 * (table["style"] == "photo").mean(),
            "covered": len(seen[["wanted", "mode", "context", "style"]].drop_duplicates()),
            "distance": 50 * (shares.iloc[:, 0] - shares.iloc[:, 1]).abs().sum(),
            **{name: table[name].mean() for name in ("entropy", "loss", "hardness")},
            "non_finite": table["non_finite"].sum(),
        }
    )


def _natural() -> pd.Series:
    """Shares of (True, mode, style) in the benchmark's draw; its style-biased classes are drawn as others."""
    styles = {"photo": 1 - BENCHMARK.drawings, "drawing": BENCHMARK.drawings}
    return pd.Series({(True, m, s): p * q for m, p in enumerate(BENCHMARK.modes) for s, q in styles.items()})


NATURAL = _natural()


def unlikeness(a: Synthetic, b: Synthetic) -> float:
    """Root mean square difference of two sets of images from the same seeds, in grey levels."""
    return float((a.images.float() - b.images.float()).square().mean().sqrt())


def cosines(w: World, asked: Asking, arm: Arm) -> pd.DataFrame:
    """Cosine similarity of the exact gradient with the cheap one, and with its own of some steps before.

    Along the unguided path of the arm, at every step; columns step, pair, image, cosine.
    """
    asked_for, gen = plan(w, asked, arm), w.generator
    predict = gen.predict(gen.embed_text(asked_for.prompts), asked_for.image, asked.cfg)
    criterion = w.criteria[arm.criterion or "entropy"]
    exact, cheap = (
        guide(predict, w.guide, criterion, asked.label, gen.schedule, Guidance(through_network=t), gen.decode)
        for t in (True, False)
    )
    past: list[Tensor] = []
    rows: list[tuple[int, str, int, float]] = []

    def watching(z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        x0, eps, gradient = exact.gradient(z, t)
        pairs = {"exact, cheap": cheap.gradient(z, t)[2]}
        pairs |= {f"exact, {lag} steps before": past[-lag] for lag in (1, 4) if len(past) >= lag}
        for pair, other in pairs.items():
            each = cosine_similarity(gradient.flatten(1), other.flatten(1)).tolist()
            rows.extend((len(past), pair, i, c) for i, c in enumerate(each))
        past.append(gradient)
        return x0, eps

    ddim(watching, gen.noise(asked_for.seeds), gen.schedule)
    return pd.DataFrame(rows, columns=["step", "pair", "image", "cosine"])


@dataclass(frozen=True)
class Comparison:
    """Arms on the same labels, seeds and conditions: a summary row, the images and the readings of each."""

    summary: pd.DataFrame
    made: dict[str, Synthetic]
    readings: pd.DataFrame


def compare(w: World, asked: Asking, arms: Sequence[Arm], real: str = "real") -> Comparison:
    """Runs every arm of a comparison, beside fresh real images, an arm of the name `real`."""
    made, tables = {}, [real_arm(w, asked.label, real)]
    for arm in progress(arms, f"ways to sample, seed {w.seed}"):
        table, made[arm.name] = run(w, asked, arm)
        tables.append(table)
    rows = [{"arm": t["arm"].iloc[0], "seed": w.seed, **summary(t)} for t in tables]
    return Comparison(pd.DataFrame(rows), made, pd.concat(tables, ignore_index=True))


def same_push(c: Comparison, pairs: Mapping[str, str], unguided: str = "base") -> pd.DataFrame:
    """How near ways to guide come to guiding every step with the same total push (FG appendix F; C10).

    pairs: arm -> the arm that guides every step. Columns arm, seed; moved: how far guiding every step moves
    the images, apart: how far the arm's are from those, both in grey levels; kept: the share of the way
    that the arm goes with it, 100 (1 - apart / moved) in %: 100 if the images are the same, 0 or less if
    no guidance would be as near; NaN if guidance moves nothing.
    """
    rows, seed = [], int(c.summary["seed"].iloc[0])
    for arm, every in pairs.items():
        moved, apart = (unlikeness(c.made[every], c.made[other]) for other in (unguided, arm))
        kept = 100 * (1 - apart / moved) if moved else float("nan")
        rows.append((arm, seed, moved, apart, kept))
    return pd.DataFrame(rows, columns=["arm", "seed", "moved", "apart", "kept"])


def by_ambiguity(c: Comparison, arms: Sequence[str]) -> pd.DataFrame:
    """Share of photographs of the right kind, by what is ambiguous about the class's name.

    Columns ambiguity, arm, seed, right (%).
    """
    chosen = c.readings[c.readings["arm"].isin(arms)]
    good = 100.0 * (chosen["recognised"] & (chosen["style"] == "photo"))
    ambiguity = chosen["wanted"].map(lambda name: CLASSES[name].ambiguity)
    grouped = chosen.assign(right=good, ambiguity=ambiguity).groupby(["ambiguity", "arm", "seed"], sort=False)
    return grouped["right"].mean().reset_index()
