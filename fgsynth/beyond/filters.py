"""Filters of synthetic images: by CLIP prototypes of the classes, or by a network's confidence."""

from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from fgsynth.beyond.scale_rule import asked_probability
from fgsynth.data.benchmark import strata
from fgsynth.data.tars import sha256
from fgsynth.evaluate.scores import STRATA
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import contents_of
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier
from fgsynth.train.batches import Source
from fgsynth.utils.errors import UserError

Rule = Literal["nearest", "quantile", "share"]
CLIP_BATCH = 256
"""Images whose CLIP embeddings are made together."""
FEW = 5
"""Real images below which a class's own distances say too little for a quantile: our choice."""


def by_prototype(
    exp: Experiment, made: SyntheticSet, rule: Rule = "nearest", at: float = 0.95, few: int = FEW
) -> NDArray[np.bool_]:
    """Prototype filter: which images are kept, (n,), by distance to the mean embedding of their class.

    The distance is 1 - cosine of the generator's CLIP embedding and the prototype, the mean of the unit
    embeddings of the class's real training images. rule: "nearest" keeps an image whose nearest prototype
    is its class's; "quantile" one that is no farther than the `at`-quantile of the class's own real images,
    each against the prototype of the others (leave one out), of all classes' distances together where a class
    has fewer than `few`; "share" of every class the share `at` of the nearest, rounded up. Whatever the rule,
    each class keeps its nearest image. Prototype distance is a usual filter of generated images; its form
    is ours.
    Raises UserError for an unknown rule, `at` outside (0, 1], classes without a real image, and where no
    class has two real images for a quantile.
    """
    if rule not in get_args(Rule):
        raise UserError(f"Unknown rule '{rule}': choose one of {', '.join(get_args(Rule))}.")
    if not 0 < at <= 1:
        raise UserError(f"Filter at {at}: choose a quantile or share above 0 and at most 1.")
    real, label = embedded(exp, exp.real), exp.real.label
    asked = torch.tensor(made.index["label"].to_numpy(np.int64))
    distance = 1 - embedded(exp, made.images) @ prototypes(real, label, exp.n_classes).T
    own = distance.gather(1, asked[:, None])[:, 0]
    if rule == "nearest":
        other = distance.scatter(1, asked[:, None], torch.inf).amin(1)
        # The score is the margin, so that a class keeps the image that is least like another class.
        return _none_emptied((own <= other).numpy(), (own - other).numpy(), asked.numpy())
    if rule == "share":
        return _nearest_share(own.numpy(), asked.numpy(), at)
    limit = limits(real, label, exp.n_classes, at, few)[asked]
    return _none_emptied((own <= limit).numpy(), own.numpy(), asked.numpy())


def by_confidence(
    exp: Experiment, made: SyntheticSet, network: Classifier, threshold: float
) -> NDArray[np.bool_]:
    """Confidence filter: which images are kept, (n,): those whose class has at least this probability.

    network: one that did not guide (`scale_rule.held_out`), as feedback lowers the guide's own confidence on
    purpose; its softmax is asked. Each class keeps its most probable image. A usual filter of generated
    images; it drops the hard ones, which feedback makes, with the wrong ones.
    Raises UserError for a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"Threshold {threshold}: a probability from 0 to 1 is needed.")
    asked = made.index["label"].to_numpy(np.int64)
    own = asked_probability(exp, made, network)
    return _none_emptied(own >= threshold, -own, asked)


def filtered(made: SyntheticSet, mask: NDArray[np.bool_], name: str) -> SyntheticSet:
    """The images that a filter keeps. name: of rule and threshold, which the digest tells beside the mask.

    Raises UserError for a mask of another length, and one that leaves nothing of a class.
    """
    _require(made, mask)
    label = made.index["label"].to_numpy()
    if (lost := np.setdiff1d(label, label[mask])).size:
        raise UserError(f"The filter '{name}' leaves no image of class {lost[0]}: keep its best one.")
    return made.rows(mask, f"{made.digest}-{name}-{sha256(np.packbits(mask).tobytes())[:12]}")


def dropped(exp: Experiment, made: SyntheticSet, mask: NDArray[np.bool_]) -> pd.DataFrame:
    """What a filter drops: one row for all images and for every stratum that has some.

    Columns stratum, n, dropped (%), one_left (classes of which a single image is left, of more: as many at
    most were kept from being emptied). In the mini world, by its judge, also wrong (% that show another
    class than asked for), precision (% wrong among those dropped) and recall (% dropped among those wrong),
    NaN where nothing is dropped or wrong. Raises UserError for a mask of another length.
    """
    _require(made, mask)
    label = made.index["label"].to_numpy(np.int64)
    stratum = strata(exp.bench.manifest.counts().numpy())[label]
    parts = [_counted(exp, made, mask, stratum == name) | {"stratum": name} for name in STRATA]
    table = pd.DataFrame([part for part in parts if part["n"]])
    total = table.drop(columns="stratum").sum().to_dict() | {"stratum": "all"}
    table = pd.concat([pd.DataFrame([total]), table], ignore_index=True)
    shares: dict[str, pd.Series] = {"stratum": table["stratum"], "n": table["n"].astype(int)}
    shares["dropped"] = _share(table, "out", "n")
    shares["one_left"] = table["one_left"].astype(int)
    if exp.bench.factors is not None:
        shares["wrong"] = _share(table, "wrong", "n")
        shares["precision"] = _share(table, "caught", "out")
        shares["recall"] = _share(table, "caught", "wrong")
    return pd.DataFrame(shares)


def embedded(exp: Experiment, images: Source) -> Tensor:
    """CLIP's embeddings of images by the experiment's generator, of unit length, (n, k) on the CPU."""
    parts = []
    for start in range(0, len(images), CLIP_BATCH):
        shown = [images[i][0] for i in range(start, min(start + CLIP_BATCH, len(images)))]
        parts.append(exp.generator.clip_embedding(shown).cpu().double())
    return normalize(torch.cat(parts), dim=1)


def prototypes(embedding: Tensor, label: Tensor, n_classes: int) -> Tensor:
    """Mean embedding of each class at unit length, (c, k). Raises UserError for a class without images."""
    if (absent := (label.bincount(minlength=n_classes) == 0).nonzero()).numel():
        raise UserError(f"Class {int(absent[0])} has no real image: it has no prototype, leave it out.")
    return normalize(_sums(embedding, label, n_classes), dim=1)


def limits(embedding: Tensor, label: Tensor, n_classes: int, q: float, few: int = FEW) -> Tensor:
    """The q-quantile of leave-one-out distances to the prototype in each class, pooled below `few`, (c,).

    embedding (n, k): of unit length. Raises UserError where no class has two images.
    """
    counts = label.bincount(minlength=n_classes)
    others = normalize(_sums(embedding, label, n_classes)[label] - embedding, dim=1)
    distance = 1 - (embedding * others).sum(1)
    paired = counts[label] > 1
    if not paired.any():
        raise UserError("No class has two real images to compare: filter by the nearest prototype instead.")
    found = distance[paired].quantile(q).repeat(n_classes)
    for c in (counts >= max(few, 2)).nonzero().flatten().tolist():
        found[c] = distance[label == c].quantile(q)
    return found


def _sums(embedding: Tensor, label: Tensor, n_classes: int) -> Tensor:
    return embedding.new_zeros(n_classes, embedding.shape[1]).index_add_(0, label, embedding)


def _nearest_share(own: NDArray[np.float64], asked: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """The nearest of every class, their number rounded up, so that one at least remains."""
    table = pd.DataFrame({"own": own, "asked": asked}).groupby("asked")["own"]
    # 1e-9: 0.1 * 30 is a little more than 3.
    wanted = np.ceil(share * table.transform("size") - 1e-9)
    kept: NDArray[np.bool_] = (table.rank(method="first") <= wanted).to_numpy()
    return kept


def _none_emptied(
    mask: NDArray[np.bool_], score: NDArray[np.float64], asked: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The mask, with the image of the lowest score of every class that it would empty."""
    mask = mask.copy()
    for c in np.setdiff1d(asked, asked[mask]):
        mine = np.flatnonzero(asked == c)
        mask[mine[score[mine].argmin()]] = True
    return mask


def _counted(
    exp: Experiment, made: SyntheticSet, mask: NDArray[np.bool_], mine: NDArray[np.bool_]
) -> dict[str, float]:
    """Counts within some images: n, out (dropped), one_left, wrong, caught (wrong and dropped)."""
    label = made.index["label"].to_numpy(np.int64)
    before, after = (np.bincount(label[some], minlength=exp.n_classes) for some in (mine, mine & mask))
    found: dict[str, float] = {"n": float(mine.sum()), "out": float((mine & ~mask).sum())}
    found["one_left"] = float(((before > 1) & (after == 1)).sum())
    if exp.bench.factors is not None:
        caught = _wrong(exp, made, mine & ~mask)
        found |= {"caught": caught, "wrong": caught + _wrong(exp, made, mine & mask)}
    return found


def _wrong(exp: Experiment, made: SyntheticSet, mine: NDArray[np.bool_]) -> float:
    """How many of some images show another class than asked for, by the judge."""
    if not mine.any():
        return 0.0
    return float(np.rint(mine.sum() * (1 - contents_of(exp, made.rows(mine))["recognised"] / 100)))


def _share(table: pd.DataFrame, part: str, whole: str) -> pd.Series:
    """In percent, NaN of nothing."""
    return 100 * table[part] / table[whole].where(table[whole] > 0)


def _require(made: SyntheticSet, mask: NDArray[np.bool_]) -> None:
    if mask.shape != (len(made.index),) or mask.dtype != bool:
        raise UserError(
            f"A mask of {mask.dtype} {mask.shape} for {len(made.index)} synthetic images: give booleans."
        )
