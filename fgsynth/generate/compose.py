"""Images of rows of a plan, as a method of a benchmark makes them."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth.config.schema import Sampling
from fgsynth.data.benchmark import Benchmark
from fgsynth.generate.generator import Dropout, Generator
from fgsynth.generate.plan import Method
from fgsynth.generate.resize import shrunk
from fgsynth.generate.synthesise import Feedback, Plan, Synthetic, synthesise
from fgsynth.guidance.feedback import Guidance


def composed(
    rows: pd.DataFrame,
    method: Method,
    bench: Benchmark,
    generator: Generator,
    sampling: Sampling,
    feedback: Feedback | None,
) -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """Images (n, h, w, 3) of rows of a plan, and what feedback saw and did, one row each (FG steps 2, 3).

    generator: one that speaks as the method's prompts do. The notes are criterion, before, after, non_finite.
    """
    s = sampling
    asked = planned(rows, method, bench, generator, s)
    cfg = s.cfg if method.image else s.cfg_text
    made = synthesise(generator, asked, cfg, feedback, batch=s.batch, solver=s.solver)
    return shrunk(made.images, s.side).numpy(), _notes(method, made)


def planned(
    rows: pd.DataFrame, method: Method, bench: Benchmark, generator: Generator, sampling: Sampling
) -> Plan:
    """What the generator is asked for by rows of a plan."""
    seeds = rows["seed"].tolist()
    if method.image:
        train = bench.manifest.rows("train").set_index("key", drop=False)
        shown = bench.shown(train.loc[rows["condition"]].reset_index(drop=True))
        image = generator.embed_image(shown, seeds, Dropout(method.dropout), sampling.noise_level)
    else:
        image = generator.no_image(len(rows))
    group = torch.tensor(rows["group"].to_numpy())
    weight = torch.tensor(method.weights)[group] if method.weights else None
    return Plan(rows["prompt"].tolist(), image, torch.tensor(rows["label"].to_numpy()), seeds, weight)


def guidance_of(sampling: Sampling, scale: float) -> Guidance:
    """Feedback guidance by a stage's settings, at a scale."""
    s = sampling
    return Guidance(
        scale,
        every=s.every,
        start=s.start,
        stop=s.stop,
        through_network=s.through_network,
        reuse=s.reuse,
    )


def _notes(method: Method, made: Synthetic) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "criterion": "+".join(method.criteria),
            "before": made.before.double().numpy(),
            "after": made.after.double().numpy(),
            "non_finite": made.non_finite.numpy(),
        }
    )
