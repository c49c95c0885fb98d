"""A guide with epistemic uncertainty: many heads on one frozen embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgsynth.experiments.experiment import Experiment
from fgsynth.models.networks import Classifier
from fgsynth.utils.seeds import generator


class Heads(Classifier):
    """Epistemic heads: many last layers on one frozen embedding, which disagree where data are few.

    One pass of the backbone, differentiable, as the epistemic head of Longtail Guidance (Hayden et al. 2025);
    a guide for the criterion `criteria.bald`: its logits are log mean_m p_m, (n, c), its embedding the heads'
    logits side by side, (n, m c). weight (m, c, k), bias (m, c); mean and scale (k,) of the embedding.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self, network: Classifier, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor
    ) -> None:
        nn.Module.__init__(self)
        self.backbone = network
        for name, value in {"weight": weight, "bias": bias, "mean": mean, "scale": scale}.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w) in [-1, 1]."""
        embedding = (self.backbone(x)[1] - self.mean) / self.scale
        logits = torch.einsum("nk,mck->nmc", embedding, self.weight) + self.bias
        log_p = logits.log_softmax(-1)
        return log_p.logsumexp(1) - torch.tensor(float(logits.shape[1])).log(), logits.flatten(1)


def epistemic_heads(
    exp: Experiment, size: int, *, updates: int = 300, rate: float = 0.05, decay: float = 0.01
) -> Heads:
    """Heads on the guide's embedding of the real images, each fitted to its own bootstrap sample.

    Cross entropy, full batches, AdamW from random weights: our choice, as is the bootstrap (Breiman 1996).
    """
    embedding = exp.outputs(exp.guide.cpu(), exp.real)[1].double()
    label, c = exp.real.label, exp.n_classes
    mean, scale = embedding.mean(0), embedding.std(0).clamp(min=1e-6)
    x = (embedding - mean) / scale
    draw = generator("epistemic heads", exp.seed)
    drawn = torch.randint(len(x), (size, len(x)), generator=draw)
    times = torch.stack([row.bincount(minlength=len(x)) for row in drawn]).double()
    weight = torch.randn(size, c, x.shape[1], generator=draw, dtype=torch.double) / x.shape[1] ** 0.5
    bias = torch.zeros(size, c, dtype=torch.double)
    parameters = [weight.requires_grad_(True), bias.requires_grad_(True)]
    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=decay)
    for _ in range(updates):
        optimiser.zero_grad()
        logits = torch.einsum("nk,mck->mnc", x, weight) + bias[:, None]
        each = F.cross_entropy(logits.flatten(0, 1), label.repeat(size), reduction="none")
        ((each.reshape(size, -1) * times).sum() / len(x)).backward()
        optimiser.step()
    values = (t.detach().float() for t in (weight, bias, mean, scale))
    return Heads(exp.guide, *values)
