"""The rows of the papers' tables that synthesise, by name, and the sets that each stage makes of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fgsynth.config.schema import Sampling
from fgsynth.generate.plan import Method

FG = "LDM-FG (Entropy)"


def methods(sampling: Sampling) -> dict[str, Method]:
    """The rows of the papers' tables that synthesise, and dropout without feedback, by name."""
    p, scales = sampling.dropout, sampling.scales
    guided = {
        f"LDM-FG ({name.title()})": Method(True, p, (name,), scales[name])
        for name in ("loss", "hardness", "entropy")
    }
    return {
        "LDM (txt)": Method(image=False),
        "LDM (txt and img)": Method(),
        "LDM (txt, img, dropout)": Method(dropout=p),
        **guided,
        "LDM-FG (Combined)": Method(True, p, ("loss", "hardness", "entropy"), scales["combined"]),
    }


def table_4_rows(sampling: Sampling) -> dict[str, Method]:
    """The rows of FG table 4 by the names they have in the ledger."""
    ways = methods(sampling)
    names = {
        (0, 0, "none"): "LDM (txt)",
        (1, 0, "none"): "LDM (txt and img)",
        (1, 1, "none"): "LDM (txt, img, dropout)",
        **{(1, 1, c): f"LDM-FG ({c.title()})" for c in ("loss", "hardness", "entropy")},
    }
    return {
        f"text 1, image {image}, dropout {dropout}, feedback {feedback}": ways[name]
        for (image, dropout, feedback), name in names.items()
    }


def sets(stage: str, block: Mapping[str, Any], sampling: Sampling) -> dict[str, tuple[Method, float]]:
    """The synthetic sets that a stage's notebook makes: method, and how many times the missing images."""
    ways = methods(sampling)
    left_out = {"imagenet_lt": (), "places_lt": ("LDM-FG (Combined)",)}.get(
        stage, ("LDM-FG (Combined)", "LDM (txt and img)")
    )
    made = {name: (way, 1.0) for name, way in ways.items() if name not in left_out}
    most = max(block.get("amounts", (1.0,)))
    if most != 1:
        made[f"{FG}, {most:g} times"] = (ways[FG], most)
    for w in block.get("coefficients", ()):
        if w not in (0.0, ways[FG].scale):
            made[f"{FG}, w {w:g}"] = (replace(ways[FG], scale=w), 1.0)
    return made
