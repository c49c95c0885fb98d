"""Acquisition functions beyond the paper's three: `(logits, embedding, label) -> one scalar per sample`."""

import torch
from torch import Tensor

from fgsynth.guidance.criteria import Criterion, entropy
from fgsynth.utils.errors import UserError


def margin(logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
    """Smallest margin: C = p_(2) - p_(1), the two likeliest classes' probabilities (Scheffer et al. 2001)."""
    top = logits.softmax(-1).topk(2, dim=-1).values
    return top[:, 1] - top[:, 0]


def least_confidence(logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
    """Least confidence: C = 1 - max_c p_f(c|x) (Lewis and Gale 1994)."""
    return 1 - logits.softmax(-1).amax(-1)


def bald(logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
    """BALD: mutual information of prediction and weights, H(mean_m p_m) - mean_m H(p_m), in nats.

    Houlsby et al. 2011; of an ensemble as Beluch et al. 2018. logits: log mean_m p_m, (n, c); embedding: the
    members' logits side by side, (n, m c), as `committee.Committee` and `committee.Heads` return both. Raises
    UserError for the embedding of a single network.
    """
    n, c = logits.shape
    if embedding.shape[1] % c or embedding.shape[1] < 2 * c:
        raise UserError("BALD needs a committee: guide with committee.Committee of two networks or more.")
    members = embedding.reshape(n, -1, c).log_softmax(-1)
    each = -(members.exp() * members).sum(-1).mean(-1)
    return entropy(logits, embedding, label) - each


class NearExemplars:
    """Entropy near exemplars: C = H(p_f(.|x)) - strength * distance to the class's nearest real one.

    The distance is one half of the Chamfer distance (Fan et al. 2017) between one sample and the class's real
    ones, in units of the typical distance of a real one to its nearest of the same class, so that strength is
    in nats: hardness that leaves the support of the data costs. The papers have no such criterion.
    """

    def __init__(self, embedding: Tensor, label: Tensor, unit: Tensor, strength: float = 1.0) -> None:
        """`embedding` (n, k) of the real images, `label` (n,), `unit` ()."""
        self.embedding, self.label, self.unit, self.strength = embedding, label, unit, strength

    @classmethod
    def fit(cls, embedding: Tensor, label: Tensor, n_classes: int, strength: float = 1.0) -> "NearExemplars":
        """Exemplars from real embeddings (n, k). Raises UserError for a class without, or all of one."""
        lonely = (torch.bincount(label, minlength=n_classes) == 0).nonzero()
        if len(lonely):
            raise UserError(
                f"Class {int(lonely[0])} has no real embedding: entropy near exemplars needs one of each."
            )
        apart = torch.cdist(embedding, embedding)
        apart.fill_diagonal_(torch.inf)
        nearest = apart.where(label[:, None] == label, torch.inf).amin(1)
        nearest = nearest[nearest.isfinite()]
        if not len(nearest) or not float(nearest.median()) > 0:
            raise UserError(
                "Entropy near exemplars needs a class of two different real images: choose 'entropy'."
            )
        return cls(embedding, label, nearest.median(), strength)

    def to(self, device: torch.device) -> "NearExemplars":
        """The same on a device."""
        embedding, label, unit = (part.to(device) for part in (self.embedding, self.label, self.unit))
        return NearExemplars(embedding, label, unit, self.strength)

    def __call__(self, logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
        """The criterion in nats, (n,)."""
        # Not cdist: its gradient is not a number where a sample meets an exemplar.
        squared = (embedding[:, None] - self.embedding[None]).square().sum(-1)
        mine = squared.where(label[:, None] == self.label, torch.inf)
        nearest = (mine.amin(1) + 1e-12).sqrt()
        return entropy(logits, embedding, label) - self.strength * nearest / self.unit


ACQUISITION: dict[str, Criterion] = {
    "margin": margin,
    "least confidence": least_confidence,
    "bald": bald,
}
"""Criteria that need nothing but their classifier. `NearExemplars` is fitted."""
