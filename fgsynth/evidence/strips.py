"""Forest plots of the pages: where an interval, its mean and the printed size lie on an axis around zero."""

from collections.abc import Hashable, Iterable, Sequence
from statistics import median
from typing import Any

from fgsynth.evidence.markdown import Line
from fgsynth.evidence.pieces import of_accuracy


def strip(line: Line, end: float) -> dict[str, Any]:
    """Where all lies on an axis from -end to end, in percent of its width; left, right: the bar goes on."""

    def at(value: float) -> float:
        return round(min(100.0, max(0.0, 50 + 50 * value / end)), 2)

    places = {key: at(line[key]) for key in ("low", "high", "mean", "printed") if _is_number(line.get(key))}
    return {**places, "left": line["low"] < -end, "right": line["high"] > end}


def reach(lines: Sequence[Line]) -> float:
    """How far an axis goes that lines share: to every mean and printed size, to all intervals but outliers.

    An outlier ends beyond twice all of the former and four times the median end: Student's interval of two
    draws can be many times as wide as the rest.
    """
    points = [abs(line[key]) for line in lines for key in ("mean", "printed") if _is_number(line.get(key))]
    ends = [max(abs(line["low"]), abs(line["high"])) for line in lines]
    fence = max(2 * max(points), 4 * median(ends))
    return max(*points, *(end for end in ends if end <= fence), 1e-9)


def with_strips(lines: Iterable[Line], unit: str | None = None) -> list[dict[Hashable, Any]]:
    """The lines in order, each with its strip and the end of its axis, which lines of one unit share.

    unit: the key that has it; else it is points, for accuracies, or the quantity.
    """
    told = [dict(line) | {"unit": line[unit] if unit else _unit(str(line["difference"]))} for line in lines]
    measured = [line for line in told if _is_number(line["mean"])]
    for line in measured:
        end = 1.04 * reach([other for other in measured if other["unit"] == line["unit"]])
        line |= {"strip": strip(line, end), "end": f"{end:.0f}" if end >= 10 else f"{end:.2g}"}
    return told


def _is_number(value: object) -> bool:
    return isinstance(value, float)


def _unit(difference: str) -> str:
    """What lines must share to be on one axis: points of accuracy, or the same quantity."""
    return "points" if of_accuracy(difference) else difference.split(":")[0]
