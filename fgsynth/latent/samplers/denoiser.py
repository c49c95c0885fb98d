"""A denoiser of features: a residual MLP in the whitened space of what varies within classes."""

import math

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from fgsynth.guidance.schedule import Schedule
from fgsynth.train.loop import finite
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator, stable_seed

STEPS, BLOCKS = 1000, 2
"""Of the noise schedule, and of the network."""
FREQUENCIES = 6
"""Of the time features: sines and cosines of half a turn to 16 turns over the schedule."""
BATCH, HIDE = 256, 0.5
"""Rows per update, and the probability that a row hides its class."""


def residuals(groups: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Features minus the mean of their class, of the classes with two or more: (n, k) float32, label (n,).

    Scaled by sqrt(n_y / (n_y - 1)): around its own mean a class of n_y rows varies too little by that.
    """
    spread = {y: x for y, x in groups.items() if len(x) > 1}
    parts = [(x - x.mean(0)) * math.sqrt(len(x) / (len(x) - 1)) for x in spread.values()]
    sizes = torch.tensor([len(x) for x in parts])
    return torch.cat(parts), torch.tensor(list(spread)).repeat_interleave(sizes)


class Denoiser(nn.Module):
    """Class-conditional v-prediction network: a residual MLP on (z, time features, class).

    Its last layer starts at zero. Of whitened residuals, v = 0 is the exact denoiser of the standard normal
    distribution, so an untrained one is the Gaussian with the pooled within-class covariance, and training
    learns only what departs from it.
    """

    frequency: Tensor

    def __init__(self, k: int, n_classes: int, width: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.register_buffer("frequency", 2.0 ** torch.arange(FREQUENCIES) * math.pi / STEPS)
        self.enter = nn.Linear(k, width)
        self.time = nn.Linear(2 * FREQUENCIES, width)
        self.label = nn.Embedding(n_classes + 1, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(BLOCKS)
        )
        self.leave = nn.Linear(width, k)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, z: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The prediction v at latents z (n, k), steps t (n,), classes y (n,); class `n_classes` is any."""
        phase = t[:, None] * self.frequency
        condition = self.time(torch.cat([phase.sin(), phase.cos()], 1)) + self.label(y)
        h = self.enter(z) + condition
        for block in self.blocks:
            h = h + block(h + condition)
        return self.leave(F.silu(h))


def scheduler() -> DDIMScheduler:
    """Squared cosine noise schedule, whose steps turn by nearly equal angles (Nichol and Dhariwal 2021)."""
    return DDIMScheduler(STEPS, beta_schedule="squaredcos_cap_v2", clip_sample=False)


def contraction(schedule: Schedule) -> float:
    """What DDIM leaves of a standard normal latent under the exact v = 0, prod_t cos(angle turned).

    A finite number of steps loses variance (30 lose 8 %); dividing the starting noise by this restores it.
    """
    shrink, double = 1.0, torch.float64
    for t, t_prev in schedule.steps:
        a, b = ((schedule.signal(s, None, double), schedule.noise(s, None, double)) for s in (t, t_prev))
        shrink *= float(a[0] * b[0] + a[1] * b[1])
    return shrink


def train_denoiser(
    z: Tensor, label: Tensor, n_classes: int, *, updates: int, width: int, rate: float, seed: int
) -> Denoiser:
    """DDPM training of the denoiser: mean squared error on v (Ho et al. 2020; Salimans and Ho 2022).

    Whitened residuals z (n, m), label (n,). Rows are drawn as often as they are there, as class-balanced and
    square-root sampling gave no other accuracy on validation data. A row hides its class half of the time, so
    that class `n_classes` learns what classes share. AdamW with a cosine decay.
    Returns the frozen network of the last update.
    Raises UserError naming the update if the loss is not finite.
    """
    draw, noising = generator("feature denoiser", seed), scheduler()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed("feature denoiser weights", seed))
        model = Denoiser(z.shape[1], n_classes, width)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(updates, 1))
    for i in progress(range(updates), f"feature diffusion, seed {seed}"):
        rows = torch.randint(len(z), (BATCH,), generator=draw)
        # One time in every slice of the schedule: less noise in the loss than from times drawn freely.
        t = (torch.arange(BATCH) + torch.rand(BATCH, generator=draw)) * (STEPS / BATCH)
        # Rounding may lift the last time to the end of the schedule.
        t = t.long().clamp(max=STEPS - 1)
        eps = torch.randn(BATCH, z.shape[1], generator=draw)
        y = torch.where(torch.rand(BATCH, generator=draw) < HIDE, n_classes, label[rows])
        v = model(noising.add_noise(z[rows], eps, t), t, y)
        loss = F.mse_loss(v, noising.get_velocity(z[rows], eps, t))
        finite(loss, i + 1, rate)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return model.eval().requires_grad_(False)
