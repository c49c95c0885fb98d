"""The sheet of docs/generators.md: every family's tiny random pipeline, guided beside unguided.

`python tests/sheet.py` draws it anew; a test compares.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import tiny_families
import tiny_sd
import tiny_unclip
import torch
from PIL import Image, ImageDraw

import fgsynth
from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import entropy
from fgsynth.guidance.feedback import Guidance
from fgsynth.models.networks import small

FILE = Path(__file__).parents[1] / "docs" / "generators.png"
MODELS = {
    "unCLIP": tiny_unclip.save, "SD 1.5": tiny_sd.save, "SDXL": tiny_families.sdxl,
    "SD 3.5": tiny_families.sd3, "FLUX.1": tiny_families.flux,
}  # fmt: skip
N, SIDE, ZOOM, MARGIN = 3, 32, 3, 60
SETTINGS = Guidance(0.2, every=1)
PROMPTS, LABELS = ["apple in water", "car", "banana"], [0, 1, 2]


def look():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return small(4).eval().requires_grad_(False)


def photos():
    return [np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8) for i in range(N)]


def images(name, folder, guide):
    """Without feedback, with it through `synthesise`, and through `fgsynth.guided`: (3, N, h, w, 3)."""
    model = MODELS[name](folder)
    g = Generator.load(model, 3, side=SIDE)
    takes_images = g.image_width > 0
    condition = g.embed_image(photos(), range(N), Dropout(0.5)) if takes_images else g.no_image(N)
    plan = Plan(PROMPTS, condition, torch.tensor(LABELS), range(N))
    plain, made = (
        synthesise(g, plan, 3.0, feedback)
        for feedback in (None, Feedback(guide, {"entropy": entropy}, 4, SETTINGS))
    )
    given = {"images": photos(), "dropout": Dropout(0.5)} if takes_images else {}
    loaded = fgsynth.guided(
        g.pipe, guide, entropy, PROMPTS, LABELS, guidance=SETTINGS, n_steps=3, side=SIDE, **given
    )
    return np.stack([one.images.numpy() for one in (plain, made, loaded)])


def sheet():
    """Rows of families; columns: without feedback, with it."""
    guide, rows = look(), {}
    with tempfile.TemporaryDirectory() as place:
        for name in MODELS:
            folder = Path(place) / name
            folder.mkdir()
            rows[name] = images(name, folder, guide)
    return rows


def drawn(rows):
    """The sheet as an image: the guided images of both doors are the same, and are shown once."""
    width, height = MARGIN + 2 * N * SIDE * ZOOM + 10, len(rows) * SIDE * ZOOM + 20
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for j, title in enumerate(("without feedback", "guided by entropy")):
        pen.text((MARGIN + j * (N * SIDE * ZOOM + 10), 4), title, fill="black")
    for i, (name, made) in enumerate(rows.items()):
        pen.text((4, 20 + i * SIDE * ZOOM + 40), name, fill="black")
        for j in range(2):
            strip = Image.fromarray(np.concatenate(list(made[j]), axis=1))
            large = strip.resize((N * SIDE * ZOOM, SIDE * ZOOM), Image.Resampling.NEAREST)
            page.paste(large, (MARGIN + j * (N * SIDE * ZOOM + 10), 20 + i * SIDE * ZOOM))
    return page


if __name__ == "__main__":
    drawn(sheet()).save(FILE, optimize=True)
    sys.exit(0)
