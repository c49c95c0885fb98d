"""Images of rows of a plan, by a method, on a benchmark (FG steps 2 and 3)."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth.config.schema import Sampling
from fgsynth.data.benchmark import Benchmark
from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.generate.resize import resized
from fgsynth.generate.synthesise import Feedback, Plan, Synthetic, synthesise
from fgsynth.guidance.feedback import Guidance


def make_images(
    rows: pd.DataFrame,
    method: Method,
    bench: Benchmark,
    generator: Generator,
    sampling: Sampling,
    feedback: Feedback | None,
) -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """Images (n, h, w, 3) of rows of a plan, and a table of their criterion, before, after and non_finite.

    `generator` has the learned words of the method's prompts, if any: `plan.with_learned_words`.
    """
    s = sampling
    entries = entries_of(rows, method, bench, generator, s)
    cfg = s.cfg if method.image else s.cfg_text
    made = synthesise(generator, entries, cfg, feedback, batch=s.batch)
    return resized(made.images, s.side).numpy(), _notes(method, made)


def entries_of(
    rows: pd.DataFrame, method: Method, bench: Benchmark, generator: Generator, sampling: Sampling
) -> Plan:
    """Prompts, conditions and seeds of rows of a plan."""
    seeds = rows["seed"].tolist()
    if method.image:
        train = bench.manifest.rows("train").set_index("key", drop=False)
        real = bench.shown(train.loc[rows["condition"]].reset_index(drop=True))
        image = generator.embed_image(real, seeds, Dropout(method.dropout), sampling.noise_level)
    else:
        image = generator.no_image(len(rows))
    return Plan(rows["prompt"].tolist(), image, torch.tensor(rows["label"].to_numpy()), seeds)


def guidance_of(sampling: Sampling, scale: float) -> Guidance:
    """Settings of feedback guidance of a stage, at a feedback scale."""
    window = sampling.model_dump(include={"every", "start", "stop", "through_network", "reuse"})
    return Guidance(scale, **window)


def _notes(method: Method, made: Synthetic) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "criterion": "+".join(method.criteria),
            "before": made.before.double().numpy(),
            "after": made.after.double().numpy(),
            "non_finite": made.non_finite.numpy(),
        }
    )
