import pandas as pd
import pytest

from fgsynth import claims
from fgsynth.errors import UserError


def toy(scale="mini", entropy_share=(18, 20, 19), entropy_accuracy=(84, 85, 86), entropy_tilt=(30, 31, 29)):
    table = {
        ("unguided", "minority_share"): (9, 10, 9.5),
        ("entropy", "minority_share"): entropy_share,
        ("real only", "minority_accuracy"): (65, 64, 66),
        ("unguided", "minority_accuracy"): (66, 65, 66.5),
        ("entropy", "minority_accuracy"): entropy_accuracy,
        ("real only", "boundary_tilt"): (38, 39, 38.5),
        ("unguided", "boundary_tilt"): (38, 38.5, 38),
        ("entropy", "boundary_tilt"): entropy_tilt,
    }
    return pd.DataFrame(
        [
            dict(
                scale=scale, benchmark="toy_2d", method=m, seed=s, metric=k, value=v, split="x", selection="y"
            )
            for (m, k), values in table.items()
            for s, v in enumerate(values)
        ]
    )


def c15(root, rows):
    table = claims.claims(root / "data" / "paper", rows).set_index("id")
    return table.loc["C15"]


def test_c15_reproduced_with_its_numbers(root):
    row = c15(root, toy())
    assert row["verdict"] == "reproduced"
    assert row["scale"] == "mini"
    assert "minority share of samples, points over unguided: +9.5 ± 1.2 (3 seeds)" in row["evidence"]
    assert row["evidence"].count("seeds") == 5


def test_c15_at_smoke_is_a_direction(root):
    assert c15(root, toy("smoke"))["verdict"] == "direction holds"


@pytest.mark.parametrize(
    "broken",
    [
        {"entropy_share": (9, 10, 9.4)},
        {"entropy_share": (5, 6, 5.5)},
        {"entropy_accuracy": (60, 70, 66)},
        {"entropy_tilt": (39, 39.5, 40)},
    ],
)
def test_c15_fails_when_any_part_fails(root, broken):
    assert c15(root, toy(**broken))["verdict"] == "does not hold"


def test_a_missing_part_is_not_run(root):
    rows = toy()
    row = c15(root, rows[rows["metric"] != "boundary_tilt"])
    assert row["verdict"] == "not run"
    assert "degrees: not run" in row["evidence"]


def test_every_claim_stands_there_and_those_without_a_rule_are_not_run(root):
    table = claims.claims(root / "data" / "paper", toy())
    assert table["id"].tolist() == [f"C{i}" for i in range(1, 19)]
    assert (table.loc[~table["id"].isin(claims.RULES), "verdict"] == "not run").all()


def test_a_rule_for_an_unknown_claim(tmp_path):
    (tmp_path / "claims.csv").write_text("id,paper,claim,quantity,value,where\nC1,p,c,q,v,w\n")
    with pytest.raises(UserError, match="has no claim C10, but there is a rule"):
        claims.claims(tmp_path, toy())


def mini_world(distance=(40, 20), covered=(10, 14), recognised=(80, 78), kept=60.0, sparse=1.9, dense=2.0):
    values = {
        ("text", "distance"): distance[0], ("text and image", "distance"): distance[1],
        ("text", "recognised"): 60, ("text and image", "recognised"): 85,
        ("dropout 0.0", "covered"): covered[0], ("dropout 0.5", "covered"): covered[1],
        ("dropout 0.0", "recognised"): recognised[0], ("dropout 0.5", "recognised"): recognised[1],
        ("base", "entropy"): 1.0, ("exact, every 5th", "kept"): kept,
        ("exact, every 5th", "entropy"): sparse, ("exact, every step, w / 5", "entropy"): dense,
    }  # fmt: skip
    rows = [
        dict(
            scale="mini", benchmark="ablations", method=m, seed=s, metric=k, value=v + 0.01 * s,
            split="x", selection="y",
        )
        for (m, k), v in values.items()
        for s in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("claim", "broken"),
    [
        ("C7", {"distance": (20, 20)}),
        ("C8", {"covered": (14, 10)}),
        ("C8", {"recognised": (80, 65)}),
        ("C10", {"kept": 40.0}),
        ("C10", {"sparse": 1.7}),
        ("C10", {"sparse": 0.9, "dense": 0.85}),
    ],
)
def test_claims_of_the_mini_world_are_directions_and_can_fail(root, claim, broken):
    def verdict(rows):
        return claims.claims(root / "data" / "paper", rows).set_index("id").loc[claim]

    assert verdict(mini_world())["verdict"] == "direction holds"
    assert verdict(mini_world(**broken))["verdict"] == "does not hold"
    assert verdict(mini_world())["stage"] == "ablations"


def test_c10_counts_the_rise_beyond_four_fifths(root):
    row = claims.claims(root / "data" / "paper", mini_world()).set_index("id").loc["C10"]
    assert "entropy raised beyond 0.8 of that, %: +3.1 ± 0.0 (3 seeds)" in row["evidence"]
    assert row["evidence"].count("seeds") == 3
