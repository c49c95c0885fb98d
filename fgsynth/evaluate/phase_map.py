"""The map of when feedback helps, from the rows of its draws: gains, their intervals, and a reading."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fgsynth.evaluate.draws import Prior, nested_interval
from fgsynth.utils import paths

FOLDER, ROWS, GAINS = Path("reports/map"), "rows.csv", "gains.csv"
DRAWS = "reports/evening/feedback_map_*"
KEY = ["factor", "value", "world", "seed"]
"""What pairs the rows of the arms "guided" and "unguided"; world is the draw, seed the classifier."""
ACCURACIES = ("overall", "many", "medium", "few,", "balanced")
"""Prefixes of the metrics of classifiers; "few" alone is one, "few recognised" is of a set."""
BEST = "each arm at its best"


def gather(root: Path) -> None:
    """Write reports/map: the rows of all draws there are, if any, and the gains of its rows."""
    found = [path / ROWS for path in sorted(root.glob(DRAWS)) if (path / ROWS).is_file()]
    if found:
        rows = pd.concat([paths.read_csv(path) for path in found])
        paths.write_text(root / FOLDER / ROWS, rows.to_csv(index=False))
    text = gains(load(root)).to_csv(index=False, float_format="%.4g")
    paths.write_text(root / FOLDER / GAINS, text)


def load(root: Path) -> pd.DataFrame:
    """The rows of reports/map. Raises UserError where they are missing or no map."""
    return paths.read_csv(root / FOLDER / ROWS, "restore it from git", (*KEY, "arm"))


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Guided minus unguided: `KEY`, and a column per metric, NaN where a setting lacks it.

    One setting is added: each arm at the CFG where its overall accuracy is best, on the other draws where
    there are several.
    """
    rows = pd.concat([rows, _at_best(rows)]) if "CFG" in set(rows["factor"]) else rows
    metrics = [c for c in rows.select_dtypes("number") if c not in KEY]
    arms = {arm: part.set_index(KEY)[metrics] for arm, part in rows.groupby("arm")}
    guided = arms["guided"]
    return (guided - arms["unguided"].reindex(guided.index)).reset_index()


def _at_best(rows: pd.DataFrame) -> pd.DataFrame:
    mine, out = rows[rows["factor"].isin(["base", "CFG"]) & rows["arm"].isin(["guided", "unguided"])], []
    for (arm, world), here in mine.groupby(["arm", "world"]):
        others = mine[(mine["arm"] == arm) & (mine["world"] != world)]
        best = (others if len(others) else here).groupby("value")["overall"].mean().idxmax()
        out.append(here[here["value"] == best].assign(factor="CFG", value=BEST))
    return pd.concat(out)


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean difference of every setting: factor, value, metric, mean, low, high, n (draws).

    95 % intervals over draws by the moderated t, whose prior is the variance between draws averaged over all
    settings; none of one draw. What is counted in a set is the same for all classifiers of a draw.
    """
    pairs, out = differences(rows), []
    metrics = [str(c) for c in pairs if c not in KEY]
    between = pairs.groupby(KEY[:3])[metrics].mean().groupby(KEY[:2]).var().mean()
    for (factor, value), part in pairs.groupby(KEY[:2], sort=False):
        for metric in metrics:
            draws = [d.to_numpy() for _, d in part.dropna(subset=metric).groupby("world")[metric]]
            if draws:
                shared = not (metric == "few" or metric.startswith(ACCURACIES))
                prior = Prior(between[metric], 0.0) if between[metric] >= 0 else None
                d = nested_interval([one[:1] if shared else one for one in draws], prior)
                low, high = (d.low, d.high) if d.n > 1 else (float("nan"),) * 2
                out.append((factor, value, metric, d.mean, low, high, d.n))
    return pd.DataFrame(out, columns=["factor", "value", "metric", "mean", "low", "high", "n"])


def reading(found: pd.DataFrame, metric: str = "few") -> list[str]:
    """What gains say in words: where feedback gains or costs, what turns the base, what is undecided."""
    mine = found[found["metric"] == metric].to_dict("records")
    named = {"{factor}: {value}".format_map(one): one for one in mine}

    def listed(chosen: Mapping[str, Mapping[Hashable, Any]]) -> str:
        """Settings with their intervals."""
        shown = "{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
        return "; ".join(f"{name} ({shown.format_map(one)})" for name, one in chosen.items())

    up = {name: one for name, one in named.items() if one["low"] > 0}
    down = {name: one for name, one in named.items() if one["high"] < 0}
    open_ = [one for name, one in named.items() if name not in {**up, **down}]
    out = [f"Feedback gains beyond doubt at {listed(up)}." if up else "Feedback gains nowhere beyond doubt."]
    out += [f"It costs beyond doubt at {listed(down)}." if down else "It costs nowhere beyond doubt."]
    if base := named.get("base: base"):
        turned = ", ".join(down if base["mean"] > 0 else up) or "nothing that was tried"
        out.append(f"At the base it is {base['mean']:+.1f}; its sign is turned beyond doubt by {turned}.")
    if seen := [(one["high"] - one["low"]) / 2 for one in open_ if one["n"] > 1]:
        out.append(
            f"{len(open_)} of {len(named)} settings are undecided; the smallest effect that could be seen "
            f"there is {min(seen):.1f} to {max(seen):.1f} points."
        )
    elif open_:
        out.append(f"{len(open_)} of {len(named)} settings are undecided: one draw has no interval.")
    return out
