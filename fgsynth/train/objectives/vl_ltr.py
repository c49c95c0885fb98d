"""VL-LTR: class-wise visual-linguistic pre-training, then language-guided recognition (Tian et al. 2022)."""

from copy import deepcopy
from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from fgsynth.config.schema import ListOf, Sentence, Share
from fgsynth.models.networks import Classifier
from fgsynth.train.losses import balanced_softmax
from fgsynth.train.objective import Batch, Forward, Moment, Objective
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import from_root

if TYPE_CHECKING:
    from fgsynth.models.clip import Clip

TEMPERATURE = 0.07
"""Of similarities at first, as CLIP's before its training (Radford et al. 2021); it is learned."""
LARGEST = 100.0
"""The scale 1 / temperature goes no higher, as in CLIP."""


@dataclass(frozen=True)
class VLLTR(Objective):
    """VL-LTR: a CLIP trained on images and sentences of classes, then as a classifier (Tian et al. 2022).

    In the first `pretraining` of the updates the loss is mix L_ccl + (1 - mix) L_dis: class-wise contrast,
    and distillation from the CLIP that it started from (section 3.2; mix 0.5 as there). Afterwards text is
    frozen and images are recognised by balanced softmax on the sum of a linear layer's logits and those
    of the sentences that an image attends to (section 3.3).
    Our choices: both halves share one schedule, so that the method costs as many updates as any other;
    sentences are templates around the class's name, not texts of the web, few enough that all are anchors, so
    that there is none to select; balanced softmax in place of class-balanced draws.
    clip: hub id or folder, below the root too; it takes the place of the recipe's network. classes: names.
    sentences: templates with {} for the name. digest: of the CLIP's files, to tell trainings apart.
    """

    name: ClassVar[str] = "VL-LTR"
    clip: str
    classes: Annotated[tuple[str, ...], ListOf]
    sentences: Annotated[tuple[Sentence, ...], ListOf, Field(min_length=1)] = ("{}", "a photo of {}")
    pretraining: Share = 0.5
    mix: Share = 0.5
    digest: str = ""

    def wrap(self, network: Classifier, n_classes: int, seed: int) -> Classifier:
        """The CLIP with its recognition head. Raises UserError for names of other classes."""
        if len(self.classes) != n_classes:
            raise UserError(
                f"VL-LTR: {len(self.classes)} names for {n_classes} classes: give the name of each."
            )
        # Imported only here: it takes a second, and every other training has no use for it.
        from fgsynth.models.clip import Clip

        clip = Clip(from_root(self.clip))
        filled = [[one.replace("{}", name) for one in self.sentences] for name in self.classes]
        ids = torch.stack([clip.ids(of_class) for of_class in filled])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return VisualLinguistic(clip, ids)

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Of the pre-training, or of the recognition."""
        logits, pairs = network(batch.x)
        n, classes, sentences, _ = pairs.shape
        # Processes that share a network need a gradient, be it 0, for every weight.
        if at.progress >= self.pretraining:
            return balanced_softmax(logits, batch.label, at.counts) + 0 * pairs.sum()
        similarity, teacher = pairs.reshape(n, classes * sentences, 2).unbind(-1)
        of_sentence = torch.arange(classes, device=batch.label.device).repeat_interleave(sentences)
        contrast = class_wise_contrast(similarity, batch.label, of_sentence)
        return self.mix * contrast + (1 - self.mix) * distillation(similarity, teacher) + 0 * logits.sum()


def class_wise_contrast(similarity: Tensor, label: Tensor, of_sentence: Tensor) -> Tensor:
    """Class-wise contrastive loss L_vis + L_lin (Tian et al. 2022, section 3.2), in nats.

    similarity (n, s): of images and sentences, over the temperature; label (n,), of_sentence (s,): their
    classes. Each image's log-probability of a sentence of its class, mean over these sentences, then over
    images; and the same of sentences, of those whose class is in the batch.
    """
    same = (label[:, None] == of_sentence).to(similarity)
    vision = (log_softmax(similarity, 1) * same).sum(1) / same.sum(1)
    seen = same.any(0)
    text = (log_softmax(similarity, 0) * same).sum(0)[seen] / same.sum(0)[seen]
    return -vision.mean() - text.mean()


def distillation(similarity: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the similarities (n, s) of a frozen CLIP, of images plus of sentences, in nats."""
    each = [-(teacher.softmax(dim) * log_softmax(similarity, dim)).sum(dim).mean() for dim in (1, 0)]
    return each[0] + each[1]


class VisualLinguistic(Classifier):
    """A CLIP that is trained, the sentences of its classes, and the head that recognises by both.

    clip: before its training, as its teacher stays; ids: token ids of sentences, (c, m, length).
    While it trains it returns logits (n, c) and, as pairs (n, c, m, 2), its own and the teacher's
    similarities of images and sentences, over the temperature; evaluated, logits and the embeddings (n, d)
    of images.
    """

    ids: Tensor

    def __init__(self, clip: "Clip", ids: Tensor) -> None:
        super().__init__(clip)
        n = clip.width
        # In a tuple, so that its weights, which are the model's own, are no part of the state.
        self._teacher = (deepcopy(clip).eval().requires_grad_(False),)
        self._anchors: Tensor | None = None
        self._taught: Tensor | None = None
        self.register_buffer("ids", ids, persistent=False)
        self.log_scale = nn.Parameter(torch.tensor(-log(TEMPERATURE)))
        self.visual = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, len(ids)))
        self.query = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, n))
        self.key = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, n))

    @property
    def clip(self) -> "Clip":
        """The network, by its own name."""
        return cast("Clip", self.network)

    def train(self, mode: bool = True) -> "VisualLinguistic":
        """As torch's; what was read by other weights is forgotten."""
        self._anchors = None
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w) in [-1, 1]."""
        image = self.clip.see(x)
        if not self.training:
            if self._anchors is None:
                self._anchors = _read(self.clip, self.ids)
            return self._logits(image, self._anchors, _cosines(image, self._anchors)), image
        text = _read(self.clip, self.ids)
        cosine = _cosines(image, text)
        with torch.no_grad():
            teacher = self._teacher[0].to(x.device)
            if self._taught is None:
                self._taught = _read(teacher, self.ids)
            theirs = _cosines(teacher.see(x), self._taught) / TEMPERATURE
        logits = self._logits(image, text.detach(), _cosines(image, text.detach()))
        return logits, torch.stack([self._scale * cosine, theirs], -1)

    @property
    def _scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=LARGEST)

    def _logits(self, image: Tensor, text: Tensor, cosine: Tensor) -> Tensor:
        """Logits (n, c): a linear layer's, plus cosines with what an image attends to in each class's text.

        text (c, m, d), cosine (n, c, m) of both. With attention a over the unit sentences t_m of a class, the
        cosine with sum_m a_m t_m is sum_m a_m cos_m over the root of a' (t t') a.
        """
        query, key = self.query(image), self.key(text)
        attention = (torch.einsum("nd,cmd->ncm", query, key) / sqrt(query.shape[1])).softmax(-1)
        unit = normalize(text, dim=-1)
        gram = torch.einsum("cmd,ckd->cmk", unit, unit)
        length = torch.einsum("ncm,cmk,nck->nc", attention, gram, attention).clamp(min=1e-12).sqrt()
        return self.visual(image) + self._scale * (attention * cosine).sum(-1) / length


def _read(clip: "Clip", ids: Tensor) -> Tensor:
    """Embeddings (c, m, d) of sentences (c, m, length)."""
    return clip.read(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])


def _cosines(image: Tensor, text: Tensor) -> Tensor:
    """Of images (n, d) and sentences (c, m, d): (n, c, m)."""
    return torch.einsum("nd,cmd->ncm", normalize(image, dim=-1), normalize(text, dim=-1))
