"""Evaluation: one nested dictionary per classifier, and what the mini world can count in a synthetic set."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fgsynth.data.benchmark import Benchmark, strata
from fgsynth.evaluate.metrics import group_accuracy, long_tail_accuracy, per_class_accuracy

STRATA = ("many", "medium", "few")
PREDICTED = NDArray[np.int64]


def evaluate(bench: Benchmark, predicted: PREDICTED, split: str) -> dict[str, Any]:
    """Accuracies of a classifier on a split, in percent, nested: overall, strata, classes, groups, modes.

    Strata by training counts; an empty one is NaN. Groups only where there are contexts. Modes only
    where hidden factors are known: `balanced` is the mean over classes and their appearances, `few, balanced`
    the same within the classes of few training images, `few, common` and `few, rare` of one kind of them.
    """
    m, rows = bench.manifest, bench.manifest.rows(split)
    label = rows["label"].to_numpy()
    counts = m.counts().numpy()
    nested: dict[str, Any] = long_tail_accuracy(predicted, label, counts)
    per_class = per_class_accuracy(predicted, label, len(m.classes))
    nested["per_class"] = dict(zip(m.classes, per_class.tolist(), strict=True))
    if len(m.contexts) > 1:
        groups = group_accuracy(predicted, label, rows["context"], len(m.classes), len(m.contexts))
        names = [f"{y}, {c}" for y in m.classes for c in m.contexts]
        nested |= {key: groups[key] for key in ("average_accuracy", "worst_group_accuracy")}
        nested["per_group"] = dict(zip(names, groups["per_group"].tolist(), strict=True))
    if bench.factors is not None:
        nested["modes"] = _by_mode(predicted == label, label, bench.hidden(split)["mode"].to_numpy(), counts)
    return nested


def _by_mode(
    hit: NDArray[np.bool_], label: PREDICTED, mode: PREDICTED, counts: PREDICTED
) -> dict[str, float]:
    table = pd.DataFrame({"hit": 100.0 * hit, "label": label, "mode": mode, "stratum": strata(counts)[label]})
    each = table.groupby(["stratum", "label", "mode"])["hit"].mean()
    rare = each.index.get_level_values("mode") > 0
    out = {"balanced": float(each.mean())}
    for name in STRATA:
        mine = each.index.get_level_values("stratum") == name
        for kind, chosen in (("balanced", mine), ("common", mine & ~rare), ("rare", mine & rare)):
            out[f"{name}, {kind}"] = float(each[chosen].mean()) if chosen.any() else float("nan")
    return out


def flat(nested: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a nested evaluation that stand in results: all but single classes and groups."""
    numbers = {k: float(v) for k, v in nested.items() if not isinstance(v, Mapping)}
    return numbers | {f"modes, {k}": float(v) for k, v in nested.get("modes", {}).items()}


def to_json(nested: Mapping[str, Any]) -> str:
    """JSON in which what does not exist is null, as JSON has no NaN."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: clean(v) for k, v in value.items()}
        return None if isinstance(value, float) and np.isnan(value) else value

    return json.dumps(clean(nested), indent=1)


def contents(index: pd.DataFrame, seen: pd.DataFrame, bench: Benchmark) -> dict[str, float]:
    """What a synthetic set of the mini world shows, by the judge: shares in percent, and one count.

    index: of the set; seen: the judge's readings, a row each. recognised: shows its class; context_right:
    shows the context of its prompt (where there is one); photographs; rare_share: shows its class in a rare
    appearance; covered: combinations of class, appearance, context and style among the recognised;
    the same with "few" in front within the classes of few training images.
    """
    m = bench.manifest
    wanted = np.array(m.classes, dtype=object)[index["label"]]
    table = seen.assign(
        wanted=wanted,
        recognised=seen["kind"].to_numpy() == wanted,
        context_right=seen["context"].to_numpy() == np.array(m.contexts, dtype=object)[index["context"]],
    )
    few = strata(m.counts().numpy())[index["label"]] == "few"
    out = _shares(table) | {f"few {k}": v for k, v in _shares(table[few]).items()}
    return out if len(m.contexts) > 1 else {k: v for k, v in out.items() if "context" not in k}


def _shares(table: pd.DataFrame) -> dict[str, float]:
    right = table[table["recognised"]]
    return {
        "recognised": 100 * float(table["recognised"].mean()),
        "context_right": 100 * float(table["context_right"].mean()),
        "photographs": 100 * float((table["style"] == "photo").mean()),
        "rare_share": 100 * float((table["recognised"] & (table["mode"] > 0)).mean()),
        "covered": float(len(right[["wanted", "mode", "context", "style"]].drop_duplicates())),
    }
