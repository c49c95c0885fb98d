"""Makers of the engines' tests: cheap images with something that goes wrong, and those of a tiny unCLIP."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fgsynth.utils.errors import UserError
from tests.generate.test_store import make


@dataclass(frozen=True)
class Cheap:
    """Writes down, per process, which keys it makes; takes `pause` seconds a piece; dies or errs at a key."""

    log: Path
    pause: float = 0.0
    deadly: str = ""
    wrong: str = ""

    def __call__(self):
        return self.make

    def make(self, rows):
        with (self.log / f"{os.getpid()}.txt").open("a") as file:
            file.write("".join(f"{key}\n" for key in rows["key"]))
        if self.deadly in set(rows["key"]):
            os._exit(1)
        if self.wrong in set(rows["key"]):
            raise UserError("The guide knows other classes: train it anew.")
        time.sleep(self.pause)
        return make(rows)

    def made(self):
        """Keys in the order in which they were made, by process."""
        return {path.stem: path.read_text().split() for path in sorted(self.log.glob("*.txt"))}

    def keys(self):
        """All keys that were made."""
        return [key for keys in self.made().values() for key in keys]


@dataclass(frozen=True)
class Unclip:
    """The tiny unCLIP under entropy guidance, on one thread, as in a worker of one core."""

    folder: Path

    def __call__(self):
        import torch

        from fgsynth.generate.dropout import Dropout
        from fgsynth.generate.generator import Generator
        from fgsynth.generate.synthesise import Feedback, Plan, synthesise
        from fgsynth.guidance.criteria import CRITERIA
        from fgsynth.guidance.feedback import Guidance
        from fgsynth.models.networks import small

        torch.set_num_threads(1)
        generator = Generator.load(self.folder, n_steps=4)
        guide = small(3).eval().requires_grad_(False)
        feedback = Feedback(guide, {"entropy": CRITERIA["entropy"]}, 3, Guidance(every=2))

        def make(rows):
            seeds = rows["seed"].tolist()
            image = generator.condition_image(torch.ones(len(rows), 32), seeds, Dropout(0.5))
            asked = Plan(["apple in water"] * len(rows), image, torch.tensor(rows["label"].to_numpy()), seeds)
            made = synthesise(generator, asked, 3.0, feedback)
            numbers = {"before": made.before.double().numpy(), "after": made.after.double().numpy()}
            notes = {"criterion": "entropy", **numbers, "non_finite": made.non_finite.numpy()}
            return made.images, pd.DataFrame(notes)

        return make
