"""What synthetic features look like, and which serve a probe better: images' features or sampled ones."""

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
from fgsynth.generate.generator import Dropout, Generator
from fgsynth.generate.synthesise import Plan, synthesise
from fgsynth.latent.features.files import FeatureSet
from fgsynth.latent.study.bridge import decode_features, image_features
from fgsynth.latent.study.comparison import TAUS, WAYS, Trial, scaling
from fgsynth.miniworld import judge
from fgsynth.models.networks import Classifier
from fgsynth.utils.seeds import generator as draw
from fgsynth.utils.seeds import stable_seed

REAL, IMAGES = "real", "unCLIP images"


@dataclass(frozen=True)
class Decoded:
    """Images (n, h, w, 3) by the kind of features they are of; their classes; what the judge reads."""

    images: Mapping[str, NDArray[np.uint8]]
    titles: Sequence[str]
    read: pd.DataFrame


def few_classes(data: FeatureSet) -> list[int]:
    """Classes of fewer than 20 training features."""
    return np.flatnonzero(strata(data.counts().numpy()) == "few").tolist()


def decode(
    data: FeatureSet, seed: int, model: Generator, reader: Classifier, ways: Sequence[str], per_class: int
) -> Decoded:
    """Real and sampled features of the few-shot classes, decoded by unCLIP without text.

    data: features as CLIP gives them. read: features, text (none or the class),
    seed, recognised (%). The images of a column share their noise.
    """
    trial, classes = Trial(data, seed, [0.01]), few_classes(data)
    x, y = data.part("train")
    rows = {REAL: torch.cat([_some(x[y == c], per_class, seed, c) for c in classes])}
    rows |= {way: torch.cat([WAYS[way](trial).sample(c, per_class, seed) for c in classes]) for way in ways}
    names = [data.classes[c] for c in classes for _ in range(per_class)]
    seeds = [stable_seed("decoded feature", seed, i) for i in range(len(names))]
    shown, read = {}, []
    for way, features in rows.items():
        for text, prompts in (("no text", None), ("the class", names)):
            made = decode_features(model, features, seeds, prompts)
            kinds = judge.read(reader, from_uint8(made))["kind"]
            right = 100 * float((kinds.to_numpy() == np.array(names)).mean())
            read.append({"features": way, "text": text, "seed": seed, "recognised": right})
            if prompts is None:
                shown[way] = made.numpy()
    return Decoded(shown, names, pd.DataFrame(read))


def images_against_samples(
    raw: FeatureSet, trial: Trial, model: Generator, ways: Sequence[str], per_class: int
) -> pd.DataFrame:
    """The few-shot classes get `per_class` features each, of unCLIP's images or sampled; a probe for each.

    raw: the features that `trial` has scaled. Images: text, and a real feature of the class with
    half of its units dropped as condition (FG's unguided sampler), then CLIP again.
    """
    counts = torch.zeros(len(raw.classes), dtype=torch.long)
    counts[few_classes(raw)] = per_class
    mean, size = scaling(raw)
    made = {IMAGES: (_imaged(raw, counts, model, trial.seed) - mean) / size}
    made |= {way: WAYS[way](trial).sample_all(counts, trial.seed)[0] for way in ways}
    x, y = trial.data.part("train")
    label = torch.cat([y, torch.arange(len(counts)).repeat_interleave(counts)])
    rows = [trial.reference(TAU_CHOSEN) | {"method": "no synthetic features"}]
    for method, features in made.items():
        probe, _ = trial.probe(torch.cat([x, features]), label, TAUS)
        rows.append(trial.row(method, probe, 0.0))
    return pd.DataFrame(rows)


def _imaged(raw: FeatureSet, counts: Tensor, model: Generator, seed: int) -> Tensor:
    """Features of images that unCLIP makes of each class, sorted by class."""
    x, y = raw.part("train")
    classes = counts.nonzero().flatten().tolist()
    shown = torch.cat([_some(x[y == c], int(counts[c]), seed, c) for c in classes])
    label = torch.arange(len(counts)).repeat_interleave(counts)
    seeds = [stable_seed("pictured feature", seed, i) for i in range(len(label))]
    image = model.condition_image(shown, seeds, Dropout(0.5))
    plan = Plan([raw.classes[c] for c in label.tolist()], image, label, seeds)
    return image_features(model, synthesise(model, plan, cfg=3.0).images)


def _some(features: Tensor, n: int, seed: int, y: int) -> Tensor:
    """N rows, drawn with replacement."""
    return features[torch.randint(len(features), (n,), generator=draw("some real features", seed, y))]
