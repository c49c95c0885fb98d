"""When to turn feedback on: a rule made from the map's settings, checked on draws that did not make it."""

from typing import Literal, NamedTuple

import pandas as pd
from pydantic import InstanceOf

from fgsynth.config.checked import checked
from fgsynth.evaluate.draws import nested_interval
from fgsynth.evaluate.metrics import Interval
from fgsynth.evaluate.phase_map import KEY, differences, load
from fgsynth.utils import paths
from fgsynth.utils.errors import UserError

MEASURED = {
    "images": "synthetic images per class", "cfg": "classifier-free scale",
    "real_share": "share of real images in a batch", "recognised": "guided images that show their class (%)",
    "rare_share": "guided images in a rare appearance (%)", "guide_right": "accuracy of the guide (%)",
    "guide_entropy": "entropy of the guide on guided images (nats)",
}  # fmt: skip
"""What a rule may rest on: settings, and what can be measured before a classifier is trained."""


class Rule(NamedTuple):
    """Feedback where a quantity times `side`, 1 or -1, is at least that of a threshold."""

    quantity: str
    threshold: float
    side: int

    def gains(self, lines: pd.DataFrame) -> pd.Series:
        """The gains of the lines where it holds."""
        return lines["gain"][self.side * lines[self.quantity] >= self.side * self.threshold]


class Advice(NamedTuple):
    """Whether to turn feedback on, why, and what that gains on draws that did not make the rule."""

    feedback: bool
    reason: str
    gain: Interval


def fitted(lines: pd.DataFrame) -> Rule:
    """The rule whose gains, where it holds, have the largest sum."""
    names = [name for name in MEASURED if name in lines]
    rules = [Rule(q, float(t), side) for q in names for t in lines[q].dropna().unique() for side in (1, -1)]
    return max(rules, key=lambda rule: rule.gains(lines).sum())


@checked
def advise(
    measured: dict[str, float],
    rows: InstanceOf[pd.DataFrame] | None = None,
    metric: Literal["few", "overall"] = "few",
) -> Advice:
    """Say whether feedback is worth its time for one's own set, by the map of when it helps.

    measured: of one's own set, by names of `MEASURED`. rows: of the map; None for those of reports/map.
    metric: what should gain. Feedback is advised only by a rule that gains beyond doubt on draws when made
    from all others. Raises UserError for an unknown name, and where the rows are missing.
    """
    if unknown := sorted(measured.keys() - MEASURED.keys()):
        raise UserError(f"advise: there is no measurement '{unknown[0]}': choose from {', '.join(MEASURED)}.")
    rows = load(paths.root()) if rows is None else rows
    guided = (
        rows[rows["arm"] == "guided"].groupby(KEY[:3])[[name for name in MEASURED if name in rows]].mean()
    )
    each = differences(rows).groupby(KEY[:3])[metric].mean().rename("gain")
    lines = guided.join(each, how="inner").reset_index()
    draws = [(lines[lines["world"] != draw], mine) for draw, mine in lines.groupby("world")]
    found = [fitted(others).gains(mine).mean() if len(others) else 0.0 for others, mine in draws]
    gain, rule = nested_interval([[0.0 if pd.isna(one) else one] for one in found]), fitted(lines)
    if not gain.low > 0:
        return Advice(False, "not decided by the measurements: leave it off, as it costs time", gain)
    told = f"{MEASURED[rule.quantity]} at {'least' if rule.side > 0 else 'most'} {rule.threshold:.3g}"
    if rule.quantity not in measured:
        return Advice(False, f"leave it off until `{rule.quantity}` is measured: it needs {told}", gain)
    on = rule.side * measured[rule.quantity] >= rule.side * rule.threshold
    return Advice(
        on, f"{told}: {gain.mean:+.1f} points of {metric} on draws that did not make the rule", gain
    )
