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
    with pytest.raises(UserError, match="has no claim C15"):
        claims.claims(tmp_path, toy())
