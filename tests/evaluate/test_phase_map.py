import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from fgsynth.evaluate.draws import PRIOR_DF
from fgsynth.evaluate.phase_map import BEST, differences, gains, gather, load, reading
from fgsynth.utils.errors import UserError


def rows(arm, few, value="base", factor="base", **more):
    """A row for each world and seed: `few` by world, then seed."""
    return [
        {"factor": factor, "value": value, "world": w, "seed": s, "arm": arm, "few": x, **more}
        for w, each in enumerate(few)
        for s, x in enumerate(each)
    ]


TABLE = pd.DataFrame(
    [
        *rows("guided", [[11.0, 22.0], [33.0, 44.0]]),
        *rows("unguided", [[10.0, 20.0], [30.0, 40.0]]),
        *rows("real", [[0.0, 0.0], [0.0, 0.0]]),
        *rows("guided", [[5.0], [5.0]], "0.1", "feedback scale"),
        *rows("unguided", [[6.0], [6.0]], "0.1", "feedback scale"),
    ]
)


def test_gains_by_hand():
    # Pairs are found by world and seed, in whatever order the rows are.
    out = gains(TABLE.sample(frac=1, random_state=1)).set_index(["factor", "value", "metric"])
    assert list(out.columns) == ["mean", "low", "high", "n"]
    # Means of the draws 1.5 and 3.5, variance 2; of the other setting 0: 1 on average, for two further draws.
    half = stdtrit(1 + PRIOR_DF, 0.975) * np.sqrt((2 + PRIOR_DF * 1) / (1 + PRIOR_DF) / 2)
    base = out.loc[("base", "base", "few")]
    assert base.tolist() == pytest.approx([2.5, 2.5 - half, 2.5 + half, 2])
    half = stdtrit(1 + PRIOR_DF, 0.975) * np.sqrt(PRIOR_DF / (1 + PRIOR_DF) / 2)
    assert out.loc[("feedback scale", "0.1", "few")].tolist() == pytest.approx([-1, -1 - half, -1 + half, 2])
    assert len(out) == 2


def test_one_draw_has_no_interval():
    out = gains(TABLE[TABLE["world"] == 0])
    assert out["mean"].tolist() == [1.5, -1]
    assert out[["low", "high"]].isna().all(axis=None)


def test_what_is_counted_in_a_set_has_one_difference_per_world():
    shared = pd.DataFrame(
        [*rows("guided", [[3.0, 4.0], [5.0, 9.0]]), *rows("unguided", [[1.0, 1.0], [1.0, 1.0]])]
    )
    counted = shared.rename(columns={"few": "few recognised"})
    assert gains(counted)["mean"].tolist() == [3.0]
    assert gains(shared)["mean"].tolist() == [(2.5 + 6) / 2]


def test_gains_leave_out_what_a_setting_does_not_have():
    nothing = {"few, rare": float("nan")}
    alone = [*rows("guided", [[3.0, 4.0]], **nothing), *rows("unguided", [[1.0, 2.0]], **nothing)]
    out = gains(pd.DataFrame(alone))
    assert out[["metric", "mean", "n"]].to_numpy().tolist() == [["few", 2, 1]]
    more = [*rows("guided", [[3.0]], "0.1", **{"few, rare": 5.0}),
            *rows("unguided", [[1.0]], "0.1", **{"few, rare": 1.0})]  # fmt: skip
    out = gains(pd.DataFrame([*alone, *more])).set_index(["value", "metric"])
    assert out["mean"].to_dict() == {("base", "few"): 2, ("0.1", "few"): 2, ("0.1", "few, rare"): 4}


def test_each_arm_is_taken_where_it_is_best_on_the_other_draws():
    def of(arm, overall, few, **where):
        return [{**row, "overall": o} for row, o in zip(rows(arm, few, **where), overall, strict=True)]

    six = {"value": "6", "factor": "CFG"}
    table = pd.DataFrame(
        [
            *of("unguided", [50, 70], [[1.0], [2.0]]),
            *of("unguided", [60, 60], [[3.0], [4.0]], **six),
            *of("guided", [90, 90], [[10.0], [20.0]]),
            *of("guided", [80, 80], [[0.0], [0.0]], **six),
        ]
    )
    found = differences(table).set_index(["value", "world"])["few"]
    # Unguided: on draw 1 the base is best, on draw 0 a CFG of 6; each is taken for the other draw.
    assert found[BEST].tolist() == [10 - 1, 20 - 4]
    # Of one draw it is the best there.
    assert differences(table[table["world"] == 0]).set_index("value")["few"][BEST] == 10 - 3


def gained(**ends):
    """Gains on Few by setting, as (mean, low, high, draws)."""
    of = [("base" if k == "base" else "CFG", k, "few", *v) for k, v in ends.items()]
    return pd.DataFrame(of, columns=["factor", "value", "metric", "mean", "low", "high", "n"])


def test_the_reading_is_of_the_gains():
    text = reading(gained(base=(-1, -2, 0.5, 3), a=(3, 1, 5, 3), b=(-2, -3, -1, 3), c=(0, -4, 4, 3)))
    assert text == [
        "Feedback gains beyond doubt at CFG: a (+3.0 [+1.0, +5.0]).",
        "It costs beyond doubt at CFG: b (-2.0 [-3.0, -1.0]).",
        "At the base it is -1.0; its sign is turned beyond doubt by CFG: a.",
        "2 of 4 settings are undecided; the smallest effect that could be seen there is 1.2 to 4.0 points.",
    ]
    nan = float("nan")
    assert reading(gained(base=(1, nan, nan, 1))) == [
        "Feedback gains nowhere beyond doubt.",
        "It costs nowhere beyond doubt.",
        "At the base it is +1.0; its sign is turned beyond doubt by nothing that was tried.",
        "1 of 1 settings are undecided: one draw has no interval.",
    ]


def test_draws_are_gathered_and_without_one_what_is_there_stays(tmp_path):
    folder = tmp_path / "reports" / "map"
    with pytest.raises(UserError, match=r"rows\.csv is missing"):
        gather(tmp_path)
    folder.mkdir(parents=True)
    TABLE.to_csv(folder / "rows.csv", index=False)
    gather(tmp_path)
    pd.testing.assert_frame_equal(load(tmp_path), TABLE)
    assert len(pd.read_csv(folder / "gains.csv")) == 2
    for draw, part in TABLE[TABLE["factor"] == "base"].groupby("world"):
        made = tmp_path / "reports" / "evening" / f"feedback_map_{draw}"
        made.mkdir(parents=True)
        part.to_csv(made / "rows.csv", index=False)
    gather(tmp_path)
    assert set(load(tmp_path)["factor"]) == {"base"}
    assert pd.read_csv(folder / "gains.csv")[["mean", "n"]].to_numpy().tolist() == [[2.5, 2]]
