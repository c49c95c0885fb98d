"""The map of when feedback helps: guided against unguided on validation images, one thing at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fgsynth.beyond.epistemic_heads import epistemic_heads
from fgsynth.config.params import FeedbackMap, Params
from fgsynth.data import mini
from fgsynth.data.images import from_uint8
from fgsynth.evaluate.scores import contents, evaluate
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.trainings import Job
from fgsynth.experiments.variants import VARIANTS, variant
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.guidance.criteria import entropy
from fgsynth.miniworld import judge
from fgsynth.models.clip import Clip
from fgsynth.models.networks import Classifier
from fgsynth.pretrain.files import JUDGE
from fgsynth.pretrain.scores import zero_shot
from fgsynth.train.recipe import Recipe
from fgsynth.train.run_folder import load
from fgsynth.train.train import predict
from fgsynth.utils.cache import weights_digest
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import stable_seed

WORK = Path("data/work/map")
Guide = Literal["ERM", "balanced", "strong", "refreshed"]
HEADS = 16
"""Of BALD's guide."""
Name = tuple[str, str]
"""Of a setting: factor and value."""


@dataclass(frozen=True)
class Arm:
    """How a synthetic set is made, and how classifiers are trained on it.

    amount: images per class; criterion: none without feedback; exact: the gradient through the denoiser;
    real_share: of a mini-batch; times: updates, times the recipe's. guide: "strong" was trained on the
    largest unguided set as classifiers are; "refreshed" so on the first half of the images, and guides the
    second.
    """

    amount: int
    cfg: float
    scale: float
    criterion: str = "entropy"
    guide: Guide = "ERM"
    exact: bool = False
    generator: str = "final"
    real_share: float = 0.5
    times: int = 1

    @property
    def unguided(self) -> "Arm":
        """The same sampler without feedback; of a refreshed guide too, as its classifiers start anew."""
        return replace(self, scale=0.0, criterion="", guide="ERM", exact=False)

    @property
    def images(self) -> "Arm":
        """What decides a set but for its size, of which a smaller one is a part."""
        return replace(self, amount=0, real_share=0.5, times=1)


def settings(s: FeedbackMap) -> dict[Name, Arm]:
    """The guided arm of every setting: the base, one thing at a time moved away from it, and two pairs."""
    base = Arm(s.per_class, s.sampling.cfg, s.sampling.scales["entropy"])

    def each(factor: str, key: str, values: Sequence[Any]) -> dict[Name, Arm]:
        """Settings of a factor that is one field."""
        named = {v: f"{v:g}" if isinstance(v, int | float) else str(v) for v in values}
        return {(factor, name): replace(base, **{key: v}) for v, name in named.items()}

    few, many, w = min(s.moved.amounts), max(s.moved.amounts), max(s.moved.scales)
    pair, weak = "generator, images per class", s.sampling.scales
    return {
        ("base", "base"): base,
        **each("images per class", "amount", s.moved.amounts),
        **each("CFG", "cfg", s.moved.cfg),
        **each("feedback scale", "scale", s.moved.scales),
        ("updates", f"x {s.moved.times}"): replace(base, times=s.moved.times),
        **each("share of real images", "real_share", s.moved.real_shares),
        **each("guide", "guide", ("balanced", "strong", "refreshed")),
        ("criterion", "loss"): replace(base, criterion="loss", scale=weak["loss"]),
        ("criterion", "hardness"): replace(base, criterion="hardness", scale=weak["hardness"]),
        ("criterion", "BALD"): replace(base, criterion="bald"),
        ("gradient", "exact"): replace(base, exact=True),
        **each("generator", "generator", VARIANTS),
        (pair, f"early, {few}"): replace(base, generator="early", amount=few),
        (pair, f"one-sided, {many}"): replace(base, generator="one-sided", amount=many),
        **{
            ("CFG, feedback scale", f"{cfg:g}, {w:g}"): replace(base, cfg=cfg, scale=w)
            for cfg in (min(s.moved.cfg), max(s.moved.cfg))
        },
    }


def arms(s: FeedbackMap) -> list[Arm]:
    """Every arm once, the unguided ones first, as a guide may be trained on their images."""
    guided = settings(s).values()
    return list(dict.fromkeys([*(arm.unguided for arm in guided), *guided]))


def sizes(s: FeedbackMap) -> dict[Arm, int]:
    """Images per class of every set there is, by `Arm.images`: the most that an arm needs."""
    most: dict[Arm, int] = {}
    for arm in arms(s):
        most[arm.images] = max(most.get(arm.images, 0), arm.amount)
    return most


def trainings(s: FeedbackMap) -> int:
    """Classifiers of a draw, in trainings of the recipe's updates, with the four guides'."""
    return s.seeds * (1 + sum(arm.times for arm in arms(s))) + 4


@dataclass(frozen=True)
class Map:
    """A draw of the map: settings, generators by name, judge, CLIP, and a folder of work.

    What was made is found again by fingerprint, so that a killed run goes on where it was.
    """

    settings: FeedbackMap
    generators: Mapping[str, Generator]
    judge: Classifier
    clip: Clip
    work: Path
    draw: int
    guides: dict[Guide, Classifier] = field(default_factory=dict, repr=False)
    sets: dict[Arm, SyntheticSet] = field(default_factory=dict, repr=False)

    @cached_property
    def exp(self) -> Experiment:
        """The experiment of the base."""
        s = self.settings
        world = s.world.model_copy(update={"seed": s.world.seed + self.draw})
        recipe, bench = Recipe.of(s.training), mini.imagenet_lt(world)
        return Experiment(bench, self.generators["final"], s.sampling, recipe, self.work / "final", self.draw)

    def run(self) -> pd.DataFrame:
        """Make all sets, train all classifiers, a row per setting, arm and classifier. Long; resumes.

        Columns: factor, value, world, seed, arm, accuracies on validation in percent; the setting in numbers,
        what judge and CLIP read off the set, what the setting's guide predicts of it and of validation.
        """
        exp, s = self.exp, self.settings
        exp.trainings.train_all([(exp.guide_recipe, stable_seed("guide", self.draw), None), self._balanced])
        made = {arm: self.made(arm) for arm in progress(arms(s), f"map, draw {self.draw}, sets")}
        jobs = [(self._recipe(arm), seed, one) for arm, one in made.items() for seed in self._seeds]
        exp.trainings.train_all([*((exp.recipe, seed, None) for seed in self._seeds), *jobs], "val")
        rows = [*self._rows(("base", "base"), "real", None, None)]
        for name, guided in settings(s).items():
            for label, arm in (("unguided", guided.unguided), ("guided", guided)):
                rows += self._rows(name, label, arm, self.guide(guided.guide))
        return pd.DataFrame(rows)

    @property
    def _seeds(self) -> range:
        return range(self.draw * self.settings.seeds, (self.draw + 1) * self.settings.seeds)

    @property
    def _balanced(self) -> Job:
        return self.exp.recipe, stable_seed("balanced guide", self.draw), None

    def _recipe(self, arm: Arm) -> Recipe:
        recipe = self.exp.recipe
        return replace(recipe, real_share=arm.real_share, epochs=arm.times * recipe.epochs)

    def guide(self, kind: Guide) -> Classifier:
        """The guide of a kind, trained once."""
        if kind not in self.guides:
            s, job = self.settings, self._balanced
            base = settings(s)["base", "base"]
            if kind == "strong":
                most = replace(base.unguided, amount=max(s.moved.amounts))
                job = self.exp.recipe, stable_seed("strong guide", self.draw), self.part(most)
            if kind == "refreshed":
                job = self.exp.recipe, stable_seed("refreshed guide", self.draw), self.half(base)
            self.guides[kind] = self.exp.guide if kind == "ERM" else self.exp.trainings.train(*job).network
        return self.guides[kind]

    def _experiment(self, arm: Arm) -> Experiment:
        """The experiment that makes an arm's images."""
        change = {"cfg": arm.cfg, "through_network": arm.exact}
        generator = self.generators[arm.generator]
        work = self.work / f"{arm.generator}-{weights_digest(generator.pipe.unet)[:12]}"
        exp = replace(self.exp, generator=generator, work=work, guided_by=self.guide(arm.guide))
        exp = replace(exp, sampling=exp.sampling.model_copy(update=change))
        return replace(exp, guided_by=epistemic_heads(exp, HEADS)) if arm.criterion == "bald" else exp

    def whole(self, arm: Arm) -> SyntheticSet:
        """The set that an arm's is a part of; of a refreshed guide its second half."""
        if arm.images not in self.sets:
            criteria = (arm.criterion,) if arm.criterion else ()
            method = Method(dropout=self.settings.sampling.dropout, criteria=criteria, scale=arm.scale)
            each = np.full(self.exp.n_classes, sizes(self.settings)[arm.images])
            exp, part = self._experiment(arm), (1, 2) if arm.guide == "refreshed" else (0, 1)
            found = exp.synthetic(method, per_group=each, part=part)
            self.sets[arm.images] = replace(found, digest=f"{exp.work.name}-{found.digest}")
        return self.sets[arm.images]

    def part(self, arm: Arm) -> SyntheticSet:
        """The first images of every class of an arm's set."""
        whole = self.whole(arm)
        mine: NDArray[np.bool_] = (whole.index["index"] < arm.amount).to_numpy()
        return whole if mine.all() else whole.rows(mine, f"{whole.digest}-{arm.amount}")

    def half(self, arm: Arm) -> SyntheticSet:
        """Every second image of an arm's set, from the first on."""
        made = self.part(arm)
        return made.rows((made.index["index"] % 2 == 0).to_numpy(), f"{made.digest}-half")

    def made(self, arm: Arm) -> SyntheticSet:
        """The synthetic set of an arm."""
        if arm.guide != "refreshed":
            return self.part(arm)
        return SyntheticSet.joined([self.half(replace(arm, guide="ERM")), self.part(arm)])

    def _rows(
        self, name: Name, label: str, arm: Arm | None, guide: Classifier | None
    ) -> Iterator[dict[str, Any]]:
        exp, made = self.exp, self.made(arm) if arm else None
        read = self._read(arm, made, guide) if arm and made and guide else {}
        recipe = self._recipe(arm) if arm else exp.recipe
        for seed in self._seeds:
            folder = exp.trainings.folder(recipe, seed, made)
            scores = evaluate(exp.bench, exp.trainings.predicted(load(folder).network, "val", folder), "val")
            modes = {f"few, {k}": scores["modes"][f"few, {k}"] for k in ("balanced", "common", "rare")}
            accuracy = {k: scores[k] for k in ("overall", "many", "medium", "few")}
            yield {
                "factor": name[0], "value": name[1], "world": self.draw, "seed": seed, "arm": label,
                **accuracy, "balanced": scores["modes"]["balanced"], **modes, **read,
            }  # fmt: skip

    def _read(self, arm: Arm, made: SyntheticSet, guide: Classifier) -> dict[str, float]:
        """What decides whether feedback helps, as it was set and measured; shares in percent."""
        x, names = from_uint8(made.at(np.arange(len(made.index)))), list(self.exp.bench.manifest.classes)
        shown, val = made.images.label, self.exp.trainings.images("val")
        logits = predict(guide, made.images)
        right = np.array(zero_shot(self.clip, x, names)) == np.array(names)[shown.numpy()]
        agrees = predict(guide, val).argmax(1) == val.label
        return {
            "images": arm.amount, "cfg": arm.cfg, "real_share": arm.real_share, "times": arm.times,
            **contents(made.index, judge.read(self.judge, x), self.exp.bench),
            "clip_right": 100 * float(right.mean()),
            "guide_right": 100 * float(agrees.double().mean()),
            "guide_entropy": float(entropy(logits, logits, shown).mean()),
        }  # fmt: skip


def of_params(everything: Params, root: Path, draw: int) -> Map:
    """A draw of the map by params.yaml, its generators trained or found."""
    s, conditioning, work = everything.feedback_map, everything.pretrain.conditioning, root / WORK
    folder = root / s.sampling.generator
    final = Generator.load(folder, s.sampling.n_steps)
    made = {"final": final}
    for name in VARIANTS:
        made[name] = variant(final, name, s.denoisers, conditioning, work)
    return Map(s, made, judge.load(folder / JUDGE), Clip(str(folder)), work, draw)
