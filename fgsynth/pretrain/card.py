"""The stage `model_card`: measure the mini unCLIP, and describe it by scores and training record."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgsynth.generate.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.miniworld.world import WEB
from fgsynth.models.clip import Clip
from fgsynth.pretrain.files import CARD, FOLDER, JUDGE, SCORES, TRAINING
from fgsynth.pretrain.scores import scores
from fgsynth.utils.paths import read_json, write_text


@dataclass(frozen=True)
class Check:
    """A requirement: what, its measured share, and the bound that it must reach or not exceed."""

    what: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the bound holds."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sense = "at least" if self.at_least else "at most"
        return f"{100 * self.value:.1f} % ({sense} {100 * self.bound:.0f} %)"


def checks(s: dict[str, Any]) -> list[Check]:
    """What the experiments need of the generator."""
    made, real, rare, shown = s["generated"], s["real"], s["rare share"], s["ambiguity"]
    both, worst = made["text and image"], min(s["by class"], key=s["by class"].get)
    gain = {k: shown["text and image"][k] - shown["text"][k] for k in shown["text"]}
    web = 1 - WEB.modes[0]
    return [
        Check("recognised as the prompted class", both["class"], 0.80),
        Check("recognised as the prompted context", both["context"], 0.95),
        Check(f"worst class ({worst})", s["by class"][worst], 0.50),
        *(
            Check(f"points lost in reconstruction, {m}", v["real"] - v["reconstructed"], 0.03, at_least=False)
            for m, v in real.items()
        ),
        Check("rare modes from an image of a rare mode", rare["image of a rare mode"], 0.60),
        Check("rare modes without image, off the web's share", abs(rare["no image"] - web), 0.10, False),
        Check("prompted context wins over the image's", made["image of another context"]["context"], 0.80),
        *(Check(f"gain by image, {k} names", gain[k], 0.20) for k in ("homonym", "misread", "style")),
        Check("loss by image, other names", -gain["none"], 0.02, at_least=False),
    ]


def percent_table(rows: dict[str, dict[str, float]], corner: str) -> str:
    """A Markdown table of shares in percent; missing cells are empty."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{100 * row[c]:.1f}" if c in row else "" for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def card(record: dict[str, Any], s: dict[str, Any]) -> str:
    """The model card in Markdown."""
    return f"{made_how(record, s)}\n{measured(s)}"


def made_how(record: dict[str, Any], s: dict[str, Any]) -> str:
    """Data, training and settings, in Markdown."""
    recipe = record["recipe"]
    losses = "\n".join(
        f"| {part} | {recipe[part]['updates']:,} of {recipe[part]['batch']} "
        f"| {h['losses'][0]:.4f} | {h['losses'][-1]:.4f} | {h['seconds'] / 60:.0f} |"
        for part, h in record["parts"].items()
    )
    settings = "; ".join(
        f"{name}: CFG {v['cfg']:g}, embedding noise level {v['noise_level']}"
        for name, v in s["settings"].items()
    )
    return f"""# The mini unCLIP

A Stable unCLIP in small, for the mini world: 32 x 32 images, 8 x 8 latents, text by cross-attention,
a noised CLIP embedding of an image as second condition, v-prediction. `StableUnCLIPImg2ImgPipeline` loads
this folder. Written by `python -m fgsynth model-card`; every number is measured.

**Data.** {recipe["images"]:,} captioned images of the "web" of the mini world (fgsynth/miniworld, draw
`WEB`), rendered from seeds; no image of a benchmark. Licence: as the project.

**Training.** {record["hardware"]}, {record["threads"]} threads, torch {record["torch"]}.
{record.get("remark", "")}

| part | updates, batch | loss of the first 500 | of the last | minutes |
|---|---|---|---|---|
{losses}

**Settings**, chosen on validation seeds as the weakest whose class is recognised within one standard error of
the best: {settings}. 30 DDIM steps, feedback off.
The judge is a network trained on {recipe["judged"]:,} real images of every kind and place,
all appearances equally often.
"""


def measured(s: dict[str, Any]) -> str:
    """Requirements and scores, in Markdown."""
    met = "\n".join(f"| {c.what} | {c} | {'yes' if c.met else '**no**'} |" for c in checks(s))
    classes = {k: {"recognised": v} for k, v in s["by class"].items()}
    return f"""## Required, and met?

| on held-out prompts | measured | met |
|---|---|---|
{met}

## The ceiling: real images, by appearance mode (%)

{percent_table(s["real"], "mode")}

## Generated images (%)

{percent_table(s["generated"], "condition")}

Images that show their kind in a rare appearance; without image, of those that show their kind (the web has
{100 * (1 - WEB.modes[0]):.0f} %):

{percent_table({"share": s["rare share"]}, "")}

Right kind *and* a photograph, by what is ambiguous about the class's name; prompt: the name alone:

{percent_table(s["ambiguity"], "condition")}

Places recognised:

{percent_table({"places": s["places"]}, "")}

## By class (%), text and image

{percent_table(classes, "class")}
"""


def model_card(root: Path) -> None:
    """Measure the mini unCLIP; write its scores and its model card."""
    folder = root / FOLDER
    record = read_json(folder / TRAINING)
    found = scores(Generator.load(folder), judge.load(folder / JUDGE), Clip(str(folder)))
    write_text(root / SCORES, json.dumps(found, indent=2))
    write_text(root / CARD, card(record, found))
