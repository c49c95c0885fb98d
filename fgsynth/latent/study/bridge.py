"""Features and images: unCLIP decodes features, its CLIP embeds images, and which serve a probe better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.config.names import TAU_CHOSEN
from fgsynth.data.benchmark import strata
from fgsynth.data.images import from_uint8
from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Plan, synthesise
from fgsynth.latent.features.feature_set import FeatureSet
from fgsynth.latent.study.comparison import METHODS, TAUS, Draw, scaling
from fgsynth.miniworld import judge
from fgsynth.models.networks import Classifier
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed

REAL, IMAGES = "real", "unCLIP images"
CFG = 3.0
"""Classifier-free scale that the mini unCLIP's model card chose with text and image."""


def decode_features(
    model: Generator,
    features: Tensor,
    seeds: Sequence[int],
    prompts: Sequence[str] | None = None,
    *,
    cfg: float = CFG,
) -> Tensor:
    """Decode CLIP features (n, width) by unCLIP: an image each by DDIM (Ramesh et al. 2022).

    Features stand in for embeddings of condition images; without prompts there is no text. Returns 8-bit
    images (n, h, w, 3); each depends on its own row, seed and prompt only. Raises UserError for no features,
    and for features of another width, that are not finite, or of another number than the seeds.
    """
    if not len(features):
        raise UserError("There are no features to decode: give at least one.")
    width = model.pipe.image_encoder.config.projection_dim
    if features.ndim != 2 or features.shape[1] != width:
        raise UserError(
            f"Features of the shape {tuple(features.shape)} cannot be decoded: the generator's CLIP gives "
            f"(n, {width}); take features of its own image encoder."
        )
    if len(features) != len(seeds):
        raise UserError(f"{len(features)} features and {len(seeds)} seeds: give one seed per feature.")
    bad = ~features.isfinite().all(1)
    if bad.any():
        raise UserError(f"Feature {int(bad.nonzero()[0])} is not finite: leave it out or sample it anew.")
    texts = [""] * len(features) if prompts is None else prompts
    image = model.condition_image(features, seeds)
    # Labels are for feedback, of which there is none.
    label = torch.zeros(len(features), dtype=torch.long)
    return synthesise(model, Plan(texts, image, label, seeds), cfg).images


@dataclass(frozen=True)
class Decoded:
    """Decoded features.

    images (n, h, w, 3) by kind of feature; titles: their classes; recognised: features, text (none or the
    class), seed, share that the judge recognises (%).
    """

    images: Mapping[str, NDArray[np.uint8]]
    titles: Sequence[str]
    recognised: pd.DataFrame


def few_classes(data: FeatureSet) -> list[int]:
    """Classes of fewer than 20 training features."""
    return np.flatnonzero(strata(data.counts().numpy()) == "few").tolist()


def decode(
    data: FeatureSet, seed: int, model: Generator, reader: Classifier, methods: Sequence[str], per_class: int
) -> Decoded:
    """Decode real and sampled features of the few-shot classes by unCLIP, with text and without.

    data: features as CLIP computes them. The images of a column share their noise.
    """
    draw, classes = Draw(data, seed, [0.01]), few_classes(data)
    x, y = data.part("train")
    rows = {REAL: torch.cat([_some(x[y == c], per_class, seed, c) for c in classes])}
    for method in methods:
        sampler = METHODS[method](draw)
        rows[method] = torch.cat([sampler.sample(c, per_class, seed) for c in classes])
    names = [data.classes[c] for c in classes for _ in range(per_class)]
    seeds = [stable_seed("decoded feature", seed, i) for i in range(len(names))]
    images, recognised = {}, []
    for kind, features in rows.items():
        for text, prompts in (("no text", None), ("the class", names)):
            made = decode_features(model, features, seeds, prompts)
            predicted = judge.read(reader, from_uint8(made))["kind"]
            right = 100 * float((predicted.to_numpy() == np.array(names)).mean())
            recognised.append({"features": kind, "text": text, "seed": seed, "recognised": right})
            if prompts is None:
                images[kind] = made.numpy()
    return Decoded(images, names, pd.DataFrame(recognised))


def images_against_samples(
    raw: FeatureSet, draw: Draw, model: Generator, methods: Sequence[str], per_class: int
) -> pd.DataFrame:
    """Compare probes with `per_class` features more of each few-shot class: of unCLIP's images, or sampled.

    raw: the features that `draw` has scaled. Images: text, and a real feature of the class with
    half of its units dropped as condition (FG's unguided sampler), then CLIP again.
    """
    counts = torch.zeros(len(raw.classes), dtype=torch.long)
    counts[few_classes(raw)] = per_class
    mean, size = scaling(raw)
    made = {IMAGES: (_features_of_images(raw, counts, model, draw.seed) - mean) / size}
    made |= {method: METHODS[method](draw).sample_all(counts, draw.seed)[0] for method in methods}
    x, y = draw.data.part("train")
    label = torch.cat([y, torch.arange(len(counts)).repeat_interleave(counts)])
    rows = [draw.reference(TAU_CHOSEN) | {"method": "no synthetic features"}]
    for method, features in made.items():
        probe, _ = draw.probe(torch.cat([x, features]), label, TAUS)
        rows.append(draw.row(method, probe, 0.0))
    return pd.DataFrame(rows)


def _features_of_images(raw: FeatureSet, counts: Tensor, model: Generator, seed: int) -> Tensor:
    """CLIP embeddings of images that unCLIP draws of each class, sorted by class."""
    x, y = raw.part("train")
    classes = counts.nonzero().flatten().tolist()
    real = torch.cat([_some(x[y == c], int(counts[c]), seed, c) for c in classes])
    label = torch.arange(len(counts)).repeat_interleave(counts)
    seeds = [stable_seed("pictured feature", seed, i) for i in range(len(label))]
    image = model.condition_image(real, seeds, Dropout(0.5))
    plan = Plan([raw.classes[c] for c in label.tolist()], image, label, seeds)
    return model.clip_embedding(list(synthesise(model, plan, cfg=CFG).images)).float().cpu()


def _some(features: Tensor, n: int, seed: int, y: int) -> Tensor:
    """N rows, drawn with replacement."""
    return features[torch.randint(len(features), (n,), generator=generator("some real features", seed, y))]
