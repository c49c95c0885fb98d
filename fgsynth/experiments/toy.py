"""The toy plane (FG appendix A.2, figure 6): two classes, each with a 90 % and a 10 % mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from fgsynth.config.names import BALANCED_REAL, PLANE_FG, PLANE_UNGUIDED, REAL_ONLY, variant
from fgsynth.guidance.criteria import CRITERIA, Criterion, Hardness
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.guidance.schedule import Schedule, model_function
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator, noise, stable_seed

METRICS = ["minority_share", "on_support", "minority_accuracy", "majority_accuracy", "boundary_tilt"]
"""Metrics per method: percentages, and the tilt in degrees."""

MODES = torch.tensor([[[-1.0, 1.1], [-1.0, -1.1]], [[1.0, -1.1], [1.0, 1.1]]])
"""Mode centres (class, majority or minority, xy). A vertical line separates the classes."""
SPREAD = 0.25
"""Standard deviation of every mode. The positions are our choice; the paper prints none."""


@dataclass(frozen=True)
class Points:
    """Points of the plane: x (n, 2), class y (n,), minority (n,) bool."""

    x: Tensor
    y: Tensor
    minority: Tensor


def draw_points(n: int, minority: float, seed: object) -> Points:
    """`n` points, classes in turn, each class with a `minority` share (0 to 1) of its second mode."""
    g = generator("plane", seed)
    y = torch.arange(n) % 2
    rare = torch.rand(n, generator=g) < minority
    x = MODES[y, rare.long()] + SPREAD * torch.randn(n, 2, generator=g)
    return Points(x, y, rare)


class Denoiser(nn.Module):
    """Class-conditional epsilon-prediction network on points: an MLP on (x, time features, class)."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.frequency = 2.0 ** torch.arange(6) * torch.pi / 1000
        self.label = nn.Embedding(2, 16)
        self.net = nn.Sequential(
            nn.Linear(2 + 12 + 16, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, z: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Noise estimate (n, 2) for points z (n, 2) at steps t (n,) of class y (n,)."""
        phase = t[:, None] * self.frequency
        return self.net(torch.cat([z, phase.sin(), phase.cos(), self.label(y)], 1))


def scheduler() -> DDIMScheduler:
    """The plane's noise schedule: 1,000 steps, linear betas."""
    return DDIMScheduler(clip_sample=False)


def train_denoiser(points: Points, updates: int, seed: int, batch: int = 512) -> Denoiser:
    """DDPM training of the denoiser on points: mean squared error on the noise (Ho et al. 2020)."""
    g, noising = generator("denoiser", seed), scheduler()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed("denoiser weights", seed))
        model = Denoiser()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for _ in progress(range(updates), f"DDPM, seed {seed}"):
        i = torch.randint(len(points.x), (batch,), generator=g)
        t = torch.randint(1000, (batch,), generator=g)
        eps = torch.randn(batch, 2, generator=g)
        z = noising.add_noise(points.x[i], eps, t)
        loss = F.mse_loss(model(z, t, points.y[i]), eps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return model.eval().requires_grad_(False)


class LinearClassifier(nn.Module):
    """A linear classifier; its embedding is the point itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(logits (n, 2), embedding (n, 2))."""
        return self.linear(x), x

    def tilt(self) -> float:
        """Angle of the boundary from the vertical line that separates all four modes, in degrees."""
        w = self.linear.weight[1] - self.linear.weight[0]
        return float(torch.rad2deg(torch.atan2(w[1].abs(), w[0])))


LEARNING_RATE = 0.1
"""Of the linear classifier: after 10 epochs its boundary runs through both minority modes."""


def train_linear(x: Tensor, y: Tensor, epochs: int) -> LinearClassifier:
    """Logistic regression by full-batch gradient descent from zero; few epochs stop it early."""
    model = LinearClassifier()
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        optimiser.zero_grad()
        F.cross_entropy(model(x)[0], y).backward()
        optimiser.step()
    return model.requires_grad_(False)


@dataclass(frozen=True)
class Trained:
    """Real points, generator and early-stopped classifier of one seed, before any synthesis."""

    seed: int
    real: Points
    denoiser: Denoiser
    classifier: LinearClassifier
    epochs: int

    def criteria(self) -> dict[str, Criterion]:
        """Entropy and loss, and hardness fitted on the real points."""
        return {**CRITERIA, "hardness": Hardness.fit(self.real.x, self.real.y, 2)}


def train(seed: int, n_points: int, updates: int, epochs: int) -> Trained:
    """Draw the real points, train the generator on them and the classifier for a few epochs."""
    real = draw_points(n_points, 0.1, seed)
    classifier = train_linear(real.x, real.y, epochs)
    return Trained(seed, real, train_denoiser(real, updates, seed), classifier, epochs)


def synthesise(
    trained: Trained, criterion: str, guidance: Guidance, n: int, n_steps: int
) -> tuple[Tensor, Tensor]:
    """`n` guided DDIM samples, classes in turn: points (n, 2) and labels (n,).

    Every criterion and scale starts from the same noise: sample i differs by guidance alone.
    """
    y = torch.arange(n) % 2
    schedule = Schedule.from_scheduler(scheduler(), n_steps)
    predict = model_function(
        lambda z, t: trained.denoiser(z, torch.full((len(z),), t), y), schedule, "epsilon"
    )
    seeds = [stable_seed(trained.seed, "toy plane", i) for i in range(n)]
    guided = guide(predict, trained.classifier, trained.criteria()[criterion], y, schedule, guidance)
    return ddim(guided, noise(seeds, (2,)), schedule), y


def joined(real: Points, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Real and synthetic points together: (n + m, 2) and (n + m,)."""
    return torch.cat([real.x, x]), torch.cat([real.y, y])


def measure_samples(x: Tensor, y: Tensor) -> dict[str, float]:
    """Share of samples within 3 standard deviations of a mode of their own class, in percent.

    minority_share: of the minority mode; on_support: of either mode.
    """
    near = (x[:, None] - MODES[y]).norm(dim=-1) < 3 * SPREAD
    return {
        "minority_share": 100 * float(near[:, 1].float().mean()),
        "on_support": 100 * float(near.any(1).float().mean()),
    }


def measure_classifier(classifier: LinearClassifier, test: Points) -> dict[str, float]:
    """Accuracy on the minority and the majority modes of test points, in percent, and the tilt in degrees."""
    hit = classifier(test.x)[0].argmax(1) == test.y
    return {
        "minority_accuracy": 100 * float(hit[test.minority].float().mean()),
        "majority_accuracy": 100 * float(hit[~test.minority].float().mean()),
        "boundary_tilt": classifier.tilt(),
    }


def compare(trained: Trained, methods: Sequence[tuple[str, Guidance]], n: int, n_steps: int) -> pd.DataFrame:
    """Synthesis by each (criterion, guidance), and the classifier trained anew on real + synthetic.

    One row per method with its criterion, scale, sample and classifier measures, plus `real only`
    (the classifier as it was) and `balanced real` (as many real points with both modes equal:
    what no synthesis can beat by much). Every classifier gets the same epochs from the same start.
    """
    test = draw_points(20_000, 0.5, f"test {trained.seed}")
    real = trained.real
    ideal = draw_points(len(real.x) + n, 0.5, f"balanced {trained.seed}")
    best = train_linear(ideal.x, ideal.y, trained.epochs)
    rows: list[dict[str, object]] = [
        {"criterion": REAL_ONLY, **measure_classifier(trained.classifier, test)},
        {"criterion": BALANCED_REAL, **measure_classifier(best, test)},
    ]
    for criterion, guidance in methods:
        x, y = synthesise(trained, criterion, guidance, n, n_steps)
        union = train_linear(*joined(real, x, y), trained.epochs)
        measures = {**measure_samples(x, y), **measure_classifier(union, test)}
        rows.append({"criterion": criterion, "scale": guidance.scale, **measures})
    return pd.DataFrame(rows).assign(seed=trained.seed)


def frames(
    trained: Trained, scales: Sequence[float], every: Sequence[int], n: int, n_steps: int
) -> pd.DataFrame:
    """Samples to step through: by criterion, steps from one guided step to the next, and feedback scale.

    One row each, the first without feedback; with its measures, the boundary b0 x1 + b1 x2 + b2 = 0 of the
    classifier trained on real and synthetic points, and the points: x1 and x2 in hundredths, one after the
    other, classes in turn.
    """
    test = draw_points(20_000, 0.5, f"test {trained.seed}")
    settings = [("entropy", 1, 0.0), *product(PLANE_FG, every, filter(None, scales))]
    rows = []
    for criterion, k, w in settings:
        x, y = synthesise(trained, criterion, Guidance(scale=w, every=k), n, n_steps)
        after = train_linear(*joined(trained.real, x, y), trained.epochs)
        weight, bias = after.linear.weight.diff(dim=0)[0], after.linear.bias.diff()[0]
        line = dict(zip(("b0", "b1", "b2"), [*weight.tolist(), bias.item()], strict=True))
        points = " ".join(map(str, (100 * x).round().int().flatten().tolist()))
        measures = measure_samples(x, y) | measure_classifier(after, test)
        rows.append({"criterion": criterion, "every": k, "w": w, **measures, **line, "points": points})
    return pd.DataFrame(rows)


def choose_scale(sweep: pd.DataFrame, criterion: str, tolerance: float = 5.0) -> float:
    """The largest feedback scale that keeps samples on the data: the selection rule of the toy plane.

    Of the scales whose mean on-support share is within `tolerance` points of the unguided one.
    `sweep` holds the rows of the selection seeds only.
    """
    mean = sweep[sweep["criterion"] == criterion].groupby("scale")["on_support"].mean()
    return float(mean[mean >= mean.loc[0.0] - tolerance].index.max())


def named_methods(sweep: pd.DataFrame, chosen: dict[str, float]) -> pd.DataFrame:
    """The rows of a sweep that the summary shows, with a `method` column.

    real only, balanced real, unguided (scale 0), each criterion at its chosen scale, and entropy at
    the printed w = 0.03 where it was swept.
    """
    scale, criterion = sweep["scale"], sweep["criterion"]
    parts = {
        REAL_ONLY: criterion == REAL_ONLY,
        PLANE_UNGUIDED: (criterion == "entropy") & (scale == 0),
        variant(PLANE_FG["entropy"], "w", 0.03): (criterion == "entropy") & (scale == 0.03),
        **{PLANE_FG[name]: (criterion == name) & (scale == w) for name, w in chosen.items()},
        BALANCED_REAL: criterion == BALANCED_REAL,
    }
    return pd.concat([sweep[mask].assign(method=name) for name, mask in parts.items()])
