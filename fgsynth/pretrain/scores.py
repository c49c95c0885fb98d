"""What the mini unCLIP can do, in numbers: the scores of its model card, all read off by the judge."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fgsynth.data.images import from_uint8
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Plan, synthesise
from fgsynth.miniworld.captions import prompt
from fgsynth.miniworld.judge import read
from fgsynth.miniworld.kinds import CLASSES
from fgsynth.miniworld.places import PLACES
from fgsynth.miniworld.render import render
from fgsynth.miniworld.scenery import CONTEXTS
from fgsynth.miniworld.world import Draw, sample
from fgsynth.models.clip import Clip
from fgsynth.models.networks import Classifier
from fgsynth.utils.seeds import stable_seed

MAJORITY = Draw(modes=(1, 0, 0, 0), drawings=0, drawn_classes=0, occluded=0)
RARE = Draw(modes=(0, 1, 1, 1), drawings=0, drawn_classes=0, occluded=0)
CFGS = (1.5, 2.0, 3.0, 4.0, 5.0)
LEVELS = (0, 200, 400)
CONTEXT_WINS = 0.85
"""How often the prompted context must win over that of the image."""


@dataclass(frozen=True)
class Setting:
    """Settings of the generator: classifier-free scale, noise level of the image embedding."""

    cfg: float
    noise_level: int = 0


def subjects(name: str, per_cell: int, draw: Draw) -> pd.DataFrame:
    """Factors of condition images: per_cell of every class in every context; `name` decides the seeds."""
    cells = [(kind, context) for kind in CLASSES for context in CONTEXTS for _ in range(per_cell)]
    seeds = [stable_seed("scores", name, i) for i in range(len(cells))]
    return sample(seeds, [k for k, _ in cells], draw, [c for _, c in cells])


def other_contexts(factors: pd.DataFrame) -> list[str]:
    """For every image a context that is not its own, all equally often."""
    shift = np.arange(len(factors)) % (len(CONTEXTS) - 1) + 1
    own = [CONTEXTS.index(c) for c in factors["context"]]
    return [CONTEXTS[(o + s) % len(CONTEXTS)] for o, s in zip(own, shift, strict=True)]


def judged(
    generator: Generator,
    judge: Classifier,
    factors: pd.DataFrame,
    contexts: Sequence[str],
    setting: Setting,
    image: bool,
) -> pd.DataFrame:
    """One generated image per row, as the judge reads it, with the row's own factors as `true_...`.

    Prompt: the row's name, in the context given ("" for none). Condition: the row's image, or none.
    """
    seeds = [stable_seed("generated", s) for s in factors["seed"]]
    prompts = [prompt(n, c) for n, c in zip(factors["name"], contexts, strict=True)]
    condition = generator.no_image(len(seeds))
    if image:
        shown = generator.clip_embedding(list(render(factors)))
        condition = generator.condition_image(shown, seeds, noise_level=setting.noise_level)
    plan = Plan(prompts, condition, torch.zeros(len(seeds), dtype=torch.long), seeds)
    seen = read(judge, from_uint8(synthesise(generator, plan, setting.cfg, bar="scores").images))
    truth = factors[["kind", "mode", "style"]].add_prefix("true_").reset_index(drop=True)
    return seen.join(truth).assign(asked=list(contexts))


def right(table: pd.DataFrame, column: str = "kind") -> float:
    """Share of images in which the judge reads what the row's image shows."""
    return float((table[column] == table[f"true_{column}"]).mean())


def rare_share(table: pd.DataFrame) -> float:
    """Share of images that show their kind in a rare appearance."""
    return float(((table["mode"] > 0) & (table["kind"] == table["true_kind"])).mean())


def context_right(table: pd.DataFrame) -> float:
    """Share of images in which the judge reads the prompted context."""
    return float((table["context"] == table["asked"]).mean())


def choose(generator: Generator, judge: Classifier) -> tuple[Setting, Setting, list[dict[str, Any]]]:
    """The settings with and without image, by `weakest`, and the sweep they come from; validation seeds."""
    factors = subjects("validation", 1, MAJORITY)
    contexts, rows = other_contexts(factors), []
    settings = [(True, Setting(cfg, level)) for cfg, level in product(CFGS, LEVELS)]
    for image, setting in [*settings, *((False, Setting(cfg)) for cfg in CFGS)]:
        table = judged(generator, judge, factors, contexts, setting, image)
        row = {"class": right(table), "context": context_right(table)}
        rows.append({"image": image, **asdict(setting), **row})
    with_image, without = ([row for row in rows if row["image"] is image] for image in (True, False))
    return weakest(with_image, len(factors)), weakest(without, len(factors)), rows


def weakest(sweep: list[dict[str, Any]], n: int) -> Setting:
    """One-standard-error rule (Breiman et al. 1984): the weakest setting that is as good as the best.

    Stronger classifier-free guidance than needed costs appearances. sweep: rows in order of strength;
    n: images behind each. As good: class recognised within one standard error of the best; only settings
    whose prompted context wins often enough count, if there are any.
    """
    able = [row for row in sweep if row["context"] >= CONTEXT_WINS] or sweep
    best = max(row["class"] for row in able)
    share = (best * n + 1) / (n + 2)  # a share of 1 has an error too
    error = math.sqrt(share * (1 - share) / n)
    chosen = next(row for row in able if row["class"] >= best - error)
    return Setting(chosen["cfg"], chosen["noise_level"])


def real_scores(generator: Generator, judge: Classifier, clip: Clip) -> dict[str, Any]:
    """The ceiling: real images and reconstructions under the judge, and zero-shot CLIP, by mode."""
    out: dict[str, Any] = {}
    for mode, draw in (("majority", MAJORITY), ("rare", RARE)):
        factors = subjects(f"real {mode}", 10, draw)
        x = from_uint8(torch.from_numpy(render(factors)))
        with torch.no_grad():
            z = torch.cat([generator.pipe.vae.encode(part).latent_dist.mean for part in x.split(256)])
            again = torch.cat([generator.pipe.vae.decode(part).sample for part in z.split(256)])
        names = zero_shot(clip, x, list(CLASSES))
        out[mode] = {
            "real": float((read(judge, x)["kind"] == factors["kind"]).mean()),
            "reconstructed": float((read(judge, again.clamp(-1, 1))["kind"] == factors["kind"]).mean()),
            "context, real": float((read(judge, x)["context"] == factors["context"]).mean()),
            "zero-shot CLIP": float(np.mean(np.array(names) == factors["name"].to_numpy())),
        }
    return out


@torch.no_grad()
def zero_shot(clip: Clip, x: Tensor, names: list[str]) -> list[str]:
    """Zero-shot CLIP: the class name nearest to each image in CLIP's space (Radford et al. 2021)."""
    text = normalize(clip.read(clip.ids(names)), dim=-1)
    image = normalize(torch.cat([clip.see(part) for part in x.split(512)]), dim=-1)
    return [names[i] for i in (image @ text.T).argmax(1).tolist()]


def scores(generator: Generator, judge: Classifier, clip: Clip, per_cell: int = 2) -> dict[str, Any]:
    """Every number of the model card; settings are chosen on validation seeds, the rest are test seeds."""
    with_image, text_only, sweep = choose(generator, judge)
    common, rare = subjects("test", per_cell, MAJORITY), subjects("test rare", per_cell, RARE)
    own, none = list(common["context"]), [""] * len(common)

    def make(factors: pd.DataFrame, contexts: Sequence[str], image: bool) -> pd.DataFrame:
        return judged(generator, judge, factors, contexts, with_image if image else text_only, image)

    both, text = make(common, own, True), make(common, own, False)
    crossed = make(common, other_contexts(common), True)
    named, named_text = make(common, none, True), make(common, none, False)
    rarely = make(rare, none, True)
    shown = pd.concat([both, named])
    by_class = (shown["kind"] == shown["true_kind"]).groupby(shown["true_kind"]).mean()
    return {
        "settings": {"text and image": asdict(with_image), "text": asdict(text_only)},
        "sweep": sweep,
        "real": real_scores(generator, judge, clip),
        "generated": {
            "text and image": {"class": right(both), "context": context_right(both)},
            "text": {"class": right(text), "context": context_right(text)},
            "image of another context": {"class": right(crossed), "context": context_right(crossed)},
            "class name only, text and image": {"class": right(named)},
            "class name only, text": {"class": right(named_text)},
        },
        "by class": {str(k): float(v) for k, v in by_class.items()},
        "rare share": {
            "image of a rare mode": rare_share(rarely),
            "its very mode": float(
                ((rarely["mode"] == rarely["true_mode"]) & (rarely["kind"] == rarely["true_kind"])).mean()
            ),
            "image of the majority": rare_share(named),
            "no image": rare_share(named_text) / right(named_text),
        },
        "ambiguity": ambiguity(named, named_text),
        "places": places(generator, judge, with_image, text_only),
    }


def ambiguity(image: pd.DataFrame, text: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Share of the right kind as a photograph, by what is ambiguous about the class's name."""
    out: dict[str, dict[str, float]] = {}
    for label, table in (("text and image", image), ("text", text)):
        good = (table["kind"] == table["true_kind"]) & (table["style"] == "photo")
        group = table["true_kind"].map(lambda kind: CLASSES[kind].ambiguity)
        out[label] = {str(k): float(v) for k, v in good.groupby(group).mean().items()}
    return out


def places(generator: Generator, judge: Classifier, image: Setting, text: Setting) -> dict[str, float]:
    """Share of generated scenes recognised as the prompted place."""
    names = [place for place in PLACES for _ in range(8)]
    factors = sample([stable_seed("scores", "places", i) for i in range(len(names))], names, MAJORITY)
    empty = [""] * len(names)
    return {
        "text and image": right(judged(generator, judge, factors, empty, image, True)),
        "text": right(judged(generator, judge, factors, empty, text, False)),
    }
