"""What README.md and the first page of the report answer, and the differences that answer it."""

from typing import NamedTuple

from fgsynth.config import names
from fgsynth.config.names import BALANCED_SOFTMAX, FG_ENTROPY, TEXT, TEXT_IMAGE, UNGUIDED, variant
from fgsynth.evidence.pieces import Comparison

IMAGES = {"imagenet_lt": "few", "places_lt": "few", "nicopp": "worst_group_accuracy"}
"""Benchmarks of images, and the accuracy that is asked of each."""
REAL_ONLY = (BALANCED_SOFTMAX, names.BALMS, names.ERM)
"""What each of them has without synthetic images."""
LOOP, UNGUIDED_LOOP = (variant(name, "cycles", 2) for name in (names.CLOSED_LOOP, names.UNGUIDED_LOOP))


class Question(NamedTuple):
    """A question in words, the comparisons that answer it, and whether README.md has it."""

    text: str
    asked: list[Comparison]
    in_readme: bool = False


def _on_images(method: str, reference: str) -> list[Comparison]:
    return [Comparison("control", b, m, method, reference) for b, m in IMAGES.items()]


def _beyond(reference: str) -> list[Comparison]:
    return [
        Comparison("control", f"beyond_{b}", IMAGES[b], LOOP, reference) for b in ("imagenet_lt", "nicopp")
    ]


TOPICS = {
    "Feedback": [
        Question(
            "Entropy feedback, over the same sampler without",
            _on_images(FG_ENTROPY, UNGUIDED),
            in_readme=True,
        ),
        Question(
            "Entropy feedback in the toy plane of figure 6",
            [
                Comparison(
                    "control", "toy_2d", "minority_accuracy", names.PLANE_FG["entropy"], names.PLANE_UNGUIDED
                )
            ],
            in_readme=True,
        ),
        Question(
            "Entropy feedback, over the same sampler without, on all classes",
            [Comparison("control", "imagenet_lt", "overall", FG_ENTROPY, UNGUIDED)],
        ),
        Question(
            "Entropy feedback, over Fill-Up: twice the images, made from learned words without it",
            [Comparison("printed", "imagenet_lt", "few", FG_ENTROPY, names.FILL_UP)],
        ),
        Question(
            "A closed loop, half of the images made for the classifier as it then is, over all at once",
            _beyond(FG_ENTROPY),
        ),
        Question("The same loop, over one whose set grows without feedback", _beyond(UNGUIDED_LOOP)),
    ],
    "A real image as condition, and dropout of it": [
        Question(
            "A real image as condition, with dropout, over text alone",
            _on_images(UNGUIDED, TEXT),
            in_readme=True,
        ),
        Question(
            "Dropout of that condition, over the real image as it is",
            [Comparison("control", b, IMAGES[b], UNGUIDED, TEXT_IMAGE) for b in ("imagenet_lt", "places_lt")],
        ),
    ],
    "Synthetic data without feedback": [
        Question(
            "Synthetic images without feedback, over real images alone",
            [
                Comparison("control", b, m, UNGUIDED, real)
                for (b, m), real in zip(IMAGES.items(), REAL_ONLY, strict=True)
            ],
            in_readme=True,
        ),
        Question(
            "Synthetic features, over balanced softmax on real ones",
            [
                Comparison("control", b, "few", names.CHOSEN_SAMPLER, BALANCED_SOFTMAX)
                for b in ("imagenet_lt_features", "digits_lt", "places_lt_features")
            ],
            in_readme=True,
        ),
    ],
}
"""The questions by topic."""
README = [question for of in TOPICS.values() for question in of if question.in_readme]
