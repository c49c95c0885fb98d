"""Figure of the whole method: boxes and arrows of FG's five steps."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

REAL, GENERATOR, GUIDE, CLASSIFIER = "#dbe7f3", "#ececec", "#fbe3cf", "#e2dcf0"
"""Fills by what a box is about."""
INK, FEEDBACK = "#333333", "#c2571a"


@dataclass(frozen=True)
class Box:
    """A box of the figure: centre, size, text and fill."""

    x: float
    y: float
    width: float
    height: float
    text: str
    fill: str

    def edge(self, side: str, shift: float = 0.0) -> tuple[float, float]:
        """Middle of a side (left, right, top, bottom), shifted along that side."""
        dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, 1), "bottom": (0, -1)}[side]
        return self.x + dx * self.width / 2 + abs(dy) * shift, self.y + dy * self.height / 2 + abs(dx) * shift


BOXES = {
    "real": Box(9, 45, 17, 14, "\n\n\nReal images\nimbalanced", REAL),
    "image": Box(9, 26, 17, 7, "Random real image\nof the class", REAL),
    "prompt": Box(9, 9, 17, 7, "Prompt\nclass label", REAL),
    "embedding": Box(30, 26, 15, 7, "CLIP embedding", GENERATOR),
    "dropout": Box(30, 15, 15, 7, "Dropout\nof its units", GENERATOR),
    "latent": Box(50.5, 24, 12, 7, "Latent $z_t$\nfirst: noise", GENERATOR),
    "denoiser": Box(50.5, 10, 12, 9, "Denoiser with\nclassifier-free\nguidance", GENERATOR),
    "prediction": Box(66, 10, 10, 9, "One-step\nprediction\n$\\hat{x}_0$", GENERATOR),
    "step": Box(66, 24, 10, 7, "DDIM step\nto $z_{t'}$", GENERATOR),
    "decoder": Box(80, 10, 10, 9, "Decoder", GENERATOR),
    "criterion": Box(80, 24, 10, 7, "Criterion\n$C(f, x, y)$", GUIDE),
    "guide": Box(80, 43, 18, 8, "1  Guide $f$\nERM on real images", GUIDE),
    "synthetic": Box(102, 17, 18, 11, "4  Synthetic images\nfill every class to\nthe largest one", GENERATOR),
    "classifier": Box(102, 37, 18, 11, "5  Classifier\nbatches half real,\nhalf synthetic", CLASSIFIER),
}
ARROWS = (
    ("real", "bottom", "image", "top", 0),
    ("real", "right", "guide", "left", 2),
    ("image", "right", "embedding", "left", 0),
    ("embedding", "bottom", "dropout", "top", 0),
    ("dropout", "right", "denoiser", "left", 2.0),
    ("prompt", "right", "denoiser", "left", -1.0),
    ("latent", "bottom", "denoiser", "top", 0),
    ("denoiser", "right", "prediction", "left", 0),
    ("prediction", "top", "step", "bottom", 0),
    ("step", "left", "latent", "right", 0),
    ("synthetic", "top", "classifier", "bottom", 0),
)
"""From the middle of a side of a box to a side of another, shifted along it."""
FED_BACK = (
    ("prediction", "right", "decoder", "left", 0),
    ("decoder", "top", "criterion", "bottom", 0),
    ("guide", "bottom", "criterion", "top", 0),
)
"""The same, of every fifth step alone."""


def method() -> tuple[Figure, pd.DataFrame]:
    """Draw FG's five steps (FG section 3, figure 2); return the figure and its arrows, one row each."""
    figure, ax = plt.subplots(figsize=(11, 5.2))
    ax.set(xlim=(0, 112), ylim=(1, 53))
    ax.axis("off")
    ax.add_patch(Rectangle((42.5, 3), 45, 33, fill=False, ec="#9a9a9a", ls="--", lw=1))
    ax.text(43.3, 35.2, "3  Stable unCLIP", va="top", fontsize=9, weight="bold")
    ax.text(22.5, 33.8, "2  Conditions", va="top", fontsize=9, weight="bold")
    for box in BOXES.values():
        _draw(ax, box)
    _tail(ax, BOXES["real"])
    for arrows, colour in ((ARROWS, INK), (FED_BACK, FEEDBACK)):
        for first, side, second, other, shift in arrows:
            _arrow(ax, BOXES[first].edge(side), BOXES[second].edge(other, shift), colour)
    _routed(ax)
    edges = [(first, second) for first, _, second, _, _ in (*ARROWS, *FED_BACK)]
    edges += [("criterion", "latent"), ("step", "synthetic"), ("real", "classifier")]
    return figure, pd.DataFrame(edges, columns=["from", "to"])


def _draw(ax: Axes, box: Box) -> None:
    corner = box.x - box.width / 2, box.y - box.height / 2
    style = "round,pad=0,rounding_size=1"
    ax.add_patch(FancyBboxPatch(corner, box.width, box.height, style, fc=box.fill, ec=INK, lw=0.8))
    ax.text(box.x, box.y, box.text, ha="center", va="center", fontsize=8.5, linespacing=1.25)


def _tail(ax: Axes, box: Box) -> None:
    """Draw a long tail of bars in the upper half of a box."""
    for i, height in enumerate((6.0, 3.2, 1.9, 1.2, 0.8, 0.5)):
        ax.add_patch(Rectangle((box.x - 7 + 2.4 * i, box.y - 0.2), 1.9, height, fc="#0b62a4"))


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start, end, color=colour, lw=1.1, arrowstyle="-|>", mutation_scale=10, shrinkA=0, shrinkB=0
        )
    )


def _routed(ax: Axes) -> None:
    """Draw the arrows that go around boxes: the gradient, the finished images, the real half of a batch."""
    latent, criterion = BOXES["latent"], BOXES["criterion"]
    ax.plot([criterion.x - 3] * 2 + [latent.x], [27.5, 30.5, 30.5], color=FEEDBACK, lw=1.1)
    _arrow(ax, (latent.x, 30.5), latent.edge("top"), FEEDBACK)
    gradient = "every 5th step: gradient $w\\,\\nabla_{z_t} C$"
    ax.text(64, 31, gradient, ha="center", va="bottom", fontsize=8.5, color=FEEDBACK)
    _arrow(ax, (87.5, 17), BOXES["synthetic"].edge("left"), INK)
    real, classifier = BOXES["real"], BOXES["classifier"]
    ax.plot([real.x + real.width / 2, classifier.x], [50, 50], color=INK, lw=1.1)
    _arrow(ax, (classifier.x, 50), classifier.edge("top"), INK)
