"""fgsynth: feedback-guided data synthesis for imbalanced classification, as a reproducible companion.

The public names are loaded when they are first used, so that `import fgsynth` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fgsynth.evaluate.advice import advise as advise
    from fgsynth.experiments.experiment import Experiment as Experiment
    from fgsynth.generate.dropout import Dropout as Dropout
    from fgsynth.generate.generator import Generator as Generator
    from fgsynth.generate.guided import guided as guided
    from fgsynth.generate.plan import Method as Method
    from fgsynth.generate.synthesise import Feedback as Feedback
    from fgsynth.generate.synthesise import Plan as Plan
    from fgsynth.generate.synthesise import synthesise as synthesise
    from fgsynth.guidance import criteria as criteria
    from fgsynth.guidance.feedback import Guidance as Guidance
    from fgsynth.guidance.feedback import guide as guide
    from fgsynth.guidance.samplers import ddim as ddim
    from fgsynth.latent.estimator import LatentClassifier as LatentClassifier
    from fgsynth.latent.estimator import LatentOverSampler as LatentOverSampler
    from fgsynth.latent.estimator_cv import LatentClassifierCV as LatentClassifierCV
    from fgsynth.latent.features.extract import extract as extract
    from fgsynth.train.recipe import Recipe as Recipe
    from fgsynth.utils.errors import UserError as UserError

__version__ = "0.1.0"

# Before torch is imported anywhere.
import_module("fgsynth.utils.environment").portable()

PUBLIC = {
    "Dropout": "generate.dropout",
    "Experiment": "experiments.experiment",
    "Feedback": "generate.synthesise",
    "Generator": "generate.generator",
    "Guidance": "guidance.feedback",
    "LatentClassifier": "latent.estimator",
    "LatentClassifierCV": "latent.estimator_cv",
    "LatentOverSampler": "latent.estimator",
    "Method": "generate.plan",
    "Plan": "generate.synthesise",
    "Recipe": "train.recipe",
    "UserError": "utils.errors",
    "advise": "evaluate.advice",
    "criteria": "guidance.criteria",
    "ddim": "guidance.samplers",
    "extract": "latent.features.extract",
    "guide": "guidance.feedback",
    "guided": "generate.guided",
    "synthesise": "generate.synthesise",
}
"""Public name -> where it is defined, below fgsynth."""
__all__ = [*PUBLIC]


def __getattr__(name: str) -> object:
    if name not in PUBLIC:
        raise AttributeError(f"module 'fgsynth' has no attribute {name!r}")
    module = import_module(f"fgsynth.{PUBLIC[name]}")
    return (
        module if PUBLIC[name].endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
