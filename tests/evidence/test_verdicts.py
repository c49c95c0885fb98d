import pandas as pd
import pytest
from tiny_results import tidy

from fgsynth.config import names
from fgsynth.config.names import ERM, FG_ENTROPY, TEXT, UNGUIDED, variant
from fgsynth.evaluate.tables import COMPARED
from fgsynth.evidence import verdicts
from fgsynth.evidence.ledger import printed_numbers, tables
from fgsynth.evidence.pieces import Comparison, Computed, Estimate, Found, Piece
from fgsynth.evidence.rules import RULES, Rule
from fgsynth.utils.errors import UserError

NOTHING = pd.DataFrame(columns=COMPARED)
SIDES = {"supports": (1, 2), "contradicts": (-2, -1), "undecided": (-1, 1)}


def made(*outcomes, role="printed", scale="mini"):
    """A piece per outcome."""
    asked = Comparison(role, "imagenet_lt", "few", FG_ENTROPY, TEXT)
    return [
        Piece(asked, scale, None if o == "not run" else Estimate(0, *SIDES.get(o, (1, 2)), 3, "t"),
              o != "out of range", 0.0, None)
        for o in outcomes
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["supports", "supports"], "supported"),
        (["supports", "undecided"], "undecided"),
        (["undecided"], "undecided"),
        (["contradicts", "undecided"], "contradicted"),
        (["contradicts", "supports"], "mixed"),
        (["contradicts", "supports", "undecided"], "mixed"),
        (["supports", "out of range", "not run"], "supported"),
        (["out of range", "not run"], "cannot be tested here"),
        ([], "cannot be tested here"),
    ],
)
def test_a_claim_is_what_its_pieces_decide(outcomes, verdict):
    assert [p.outcome for p in made(*outcomes)] == outcomes
    assert verdicts.decide(made(*outcomes)) == verdict


def test_only_the_papers_own_scale_reproduces():
    assert verdicts.decide(made("supports", scale="paper")) == "reproduced"
    assert verdicts.decide(made("supports", scale="paper") + made("supports")) == "supported"


def test_whose_experiment_it_is():
    protocol, ours = Rule(lambda _: []), Rule(lambda _: [], "ours")
    assert verdicts.experiment(protocol, made("supports", scale="paper")) == "the paper's own"
    assert (
        verdicts.experiment(protocol, made("undecided"))
        == "the paper's protocol, shortened, on the mini world"
    )
    assert verdicts.experiment(ours, made("supports", scale="paper")) == "a set-up of ours"
    assert verdicts.experiment(protocol, made("not run")) == "none"


def decided(root, rows, claim, compared=NOTHING):
    """A claim's row of claims.csv, with its pieces as text."""
    found = Found(rows, compared, root / "data" / "paper")
    pieces = verdicts.pieces_of(found)
    row = verdicts.claims(root / "data" / "paper", pieces).set_index("id").loc[claim]
    return {**row, "evidence": "; ".join(f"{p} ({p.asked.role}, {p.outcome})" for p in pieces[claim])}


def test_other_printed_rows_stand_beside_and_controls_decide_the_second_line(root):
    fill_up = {f"{FG_ENTROPY}:few": [60, 61, 62], f"{names.FILL_UP}:few": [50, 51, 52]}
    row = decided(root, tidy("imagenet_lt", **fill_up, **{f"{names.CMO}:few": [70, 71, 72]}), "C1")
    assert (row["as_printed"], row["with_controls"]) == ("supported", "cannot be tested here")
    assert f"few: {FG_ENTROPY} - {names.CMO}: -10.0 [-10.0, -10.0] (row, contradicts)" in row["evidence"]
    row = decided(root, tidy("imagenet_lt", **fill_up, **{f"{UNGUIDED}:few": [70, 71, 72]}), "C1")
    assert (row["as_printed"], row["with_controls"]) == ("supported", "mixed")
    assert row["experiment"] == "the paper's protocol, shortened, on the mini world"


def test_without_a_control_the_second_line_says_so(root):
    mixed = {FG_ENTROPY: [60, 61, 62], names.FG_COMBINED: [50, 51, 52]}
    row = decided(root, tidy("imagenet_lt", **mixed), "C14")
    assert (row["as_printed"], row["with_controls"]) == ("supported", "no control")


def test_every_benchmark_that_the_printed_tables_name_is_asked(root):
    nothing = Found(tidy("b", ERM=[1]), NOTHING, root / "data" / "paper")
    asked = {c: {a.benchmark for a in RULES[c].asked(nothing) if a.role == "printed"} for c in RULES}
    assert asked["C5"] == {"imagenet_lt", "places_lt", "nicopp"}
    assert asked["C6"] == {"imagenet_lt", "nicopp", "ablations"}


def test_printed_pieces_of_a_difference_have_their_printed_size(root):
    nothing = Found(tidy("b", ERM=[1]), NOTHING, root / "data" / "paper")
    sized = {c: [p for p in of if isinstance(p.asked, Comparison) and p.asked.role != "control"]
             for c, of in verdicts.pieces_of(nothing).items()}  # fmt: skip
    for claim in ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C14", "C16"):
        assert all(p.printed is not None for p in sized[claim]), claim
        # The papers' own numbers support the papers' claims, rows beside them aside.
        own = [p for p in sized[claim] if p.asked.role == "printed"]
        assert own
        assert all(p.printed > 0 for p in own), claim


def test_every_method_of_a_printed_table_is_asked_where_its_claim_compares_with_all(root):
    paper = root / "data" / "paper"
    nothing = Found(tidy("b", ERM=[1]), NOTHING, paper)
    made_with = {FG_ENTROPY, names.FG_LOSS, names.FG_HARDNESS, TEXT, names.TEXT_IMAGE, names.FG_VL_LTR}
    for claim, table in (("C1", "table1_imagenet_lt"), ("C3", "table2_places_lt"), ("C4", "table3_nicopp")):
        printed = set(printed_numbers(paper, table, tables(paper)[table])["method"])
        references = {a.reference for a in RULES[claim].asked(nothing) if a.role != "control"}
        assert references == printed - made_with


def test_sweeps_ask_for_what_was_run(root):
    worst = "worst_group_accuracy"
    at = {f"{variant(FG_ENTROPY, 'w', w)}:{worst}": [v, v + 1, v + 2]
          for w, v in ((0, 40), (0.01, 42), (0.03, 46), (0.1, 44))}  # fmt: skip
    row = decided(root, tidy("nicopp", **at), "C13")
    assert (row["as_printed"], row["evidence"].count("supports")) == ("supported", 5)
    lower = at | {f"{variant(FG_ENTROPY, 'w', 0.1)}:{worst}": [50, 51, 52]}
    assert decided(root, tidy("nicopp", **lower), "C13")["as_printed"] == "mixed"
    amounts = {f"{variant(FG_ENTROPY, 'amount', a)}:{m}": [v, v + 1, v + 2]
               for a, v in ((0, 40), (0.5, 30), (1, 50)) for m in ("few", "overall", "many")}  # fmt: skip
    row = decided(root, tidy("imagenet_lt", **amounts), "C11")
    assert (row["as_printed"], row["with_controls"]) == ("supported", "mixed")


def test_computed_quantities_are_what_they_say(root):
    methods = {ERM: 1, TEXT: 2, UNGUIDED: 3, FG_ENTROPY: 4}
    fid = {f"{m}:fid": [-r, -r] for m, r in methods.items()}
    accuracy = {f"{m}:avg_val_accuracy": [50 + r, 60 + r] for m, r in methods.items()}
    row = decided(root, tidy("ablations", **fid, **accuracy), "C9")
    assert (
        "rank correlation of fid with accuracy over methods: -1.0 [-1.0, -1.0] (control, undecided)"
        in (row["evidence"])
    )
    accuracy[f"{ERM}:avg_val_accuracy"] = [51, 62.5]  # no interval of a correlation leaves -1 to 1
    told = decided(root, tidy("ablations", **fid, **accuracy), "C9")["evidence"]
    assert "rank correlation of fid with accuracy over methods: -0.9 [-1.0, +0.4]" in told


def test_every_5th_step_is_held_to_every_step_of_the_same_coefficient_and_of_the_same_push(root):
    accuracy = "avg_val_accuracy"
    fifth, same_push = names.EXACT_FIFTH, names.EXACT_EVERY
    rows = tidy(
        "ablations",
        **{f"{fifth}:{accuracy}": [60.0, 61.1, 62.0], f"{fifth}:kept_same_w": [60, 62, 64]},
        **{f"{variant(same_push, 'w', 0.03)}:{accuracy}": [60.1, 61.0, 62.1]},
        **{f"{same_push}:{accuracy}": [65, 66, 67], f"{fifth}:kept": [-9, -10, -11]},
    )
    row = decided(root, rows, "C10")
    assert (row["as_printed"], row["with_controls"]) == ("supported", "mixed")
    assert "unguided to every-step images: +62.0 [+57.0, +67.0] (printed, supports)" in row["evidence"]
    assert "same total push: -10.0 [-12.5, -7.5] (control, contradicts)" in row["evidence"]


def test_the_plane_has_an_unguided_control(root):
    plane, guided, real = names.PLANE_UNGUIDED, names.PLANE_FG["entropy"], names.REAL_ONLY
    accuracy = {
        f"{m}:minority_accuracy": [v, v + 1, v + 2] for m, v in ((real, 60), (plane, 82), (guided, 80))
    }
    row = decided(root, tidy("toy_2d", **accuracy), "C15")
    # Retraining on any synthetic points does it: the claim as printed holds, feedback has no part in it.
    assert (row["as_printed"], row["with_controls"]) == ("supported", "mixed")


def test_the_plane_is_asked_at_the_printed_coefficient_too(root):
    weak, plane = variant(names.PLANE_FG["entropy"], "w", 0.03), names.PLANE_UNGUIDED
    share = {f"{m}:minority_share": [v, v + 1, v + 2] for m, v in ((weak, 12), (plane, 10))}
    told = decided(root, tidy("toy_2d", **share), "C15")["evidence"]
    assert f"minority share: {weak} - {plane}: +2.0 [+2.0, +2.0] (control, supports)" in told
    assert told.count(f"minority accuracy: {weak} - ") == 2


def test_pieces_csv_has_a_line_per_piece_with_where_it_is_made(root):
    rows = tidy("imagenet_lt", **{f"{FG_ENTROPY}:few": [60, 61], f"{names.FILL_UP}:few": [50, 52]})
    found = Found(rows, NOTHING, root / "data" / "paper")
    pieces = verdicts.pieces_of(found)
    table = verdicts.pieces_table(found, pieces)
    assert len(table) == sum(map(len, pieces.values()))
    assert list(table.columns) == verdicts.PIECES
    line = table[(table["claim"] == "C1") & (table["role"] == "printed")].iloc[0]
    assert (line["stage"], line["notebook"], line["n"]) == ("baselines", "09_baselines", 2)
    assert (line["mean"], line["printed"], line["outcome"]) == (
        pytest.approx(9.5),
        pytest.approx(4.5),
        "supports",
    )
    assert set(table.loc[table["claim"] == "C17", "stage"]) == {"latent_probe"}
    assert set(table.loc[table["claim"] == "C15", "stage"]) == {"toy_2d"}


def test_every_claim_has_a_rule_and_every_rule_a_claim(root, tmp_path):
    found = Found(tidy("b", ERM=[1]), NOTHING, root / "data" / "paper")
    pieces = verdicts.pieces_of(found)
    table = verdicts.claims(root / "data" / "paper", pieces)
    assert table["id"].tolist() == [f"C{i}" for i in range(1, 19)] == list(RULES)
    assert set(table["as_printed"]) == {"cannot be tested here"}
    assert all(isinstance(p.asked, Comparison | Computed) for of in pieces.values() for p in of)
    with pytest.raises(UserError, match=r"claims\.csv is missing"):
        verdicts.claims(tmp_path, pieces)
    (tmp_path / "claims.csv").write_text("id,paper,claim,quantity,value,where\nC1,p,c,q,v,w\n")
    with pytest.raises(UserError, match=r"claims\.csv and the rules .* differ in claim C10"):
        verdicts.claims(tmp_path, pieces)
