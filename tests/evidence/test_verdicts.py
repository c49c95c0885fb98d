import pandas as pd
import pytest

from fgsynth.config import names
from fgsynth.config.names import FG_ENTROPY, TEXT, TEXT_IMAGE, variant
from fgsynth.config.params import load
from fgsynth.evaluate.metrics import Bootstrap, Interval
from fgsynth.evaluate.tables import COMPARED
from fgsynth.evidence import rules as rules
from fgsynth.evidence import verdicts
from fgsynth.evidence.ledger import printed_numbers, tables
from fgsynth.generate.methods import table_4_rows
from fgsynth.utils.errors import UserError

FG, SAME = FG_ENTROPY, names.UNGUIDED
LATER = {names.TEXT, names.FG_LOSS, names.FG_HARDNESS}
PLANE, PLANE_FG = names.PLANE_UNGUIDED, names.PLANE_FG["entropy"]
HALF, NONE = (variant(SAME, "p", p) for p in (0.5, 0))
WORST = "worst_group_accuracy"
STAGES = {
    **dict.fromkeys(("C1", "C5", "C6", "C11", "C12", "C14"), "imagenet_lt"),
    **dict.fromkeys(("C7", "C8", "C9", "C10"), "ablations"),
    **dict.fromkeys(("C4", "C13"), "nicopp"),
    **dict.fromkeys(("C2", "C16"), "baselines"),
    **{
        "C3": "places_lt",
        "C15": "toy_2d",
        "C17": "latent_probe",
        "C18": "latent_probe",
    },
}
CHOSEN = rules.CHOSEN
BENCHMARKS = {
    "C2": "imagenet_lt",
    "C16": "imagenet_lt",
    "C17": "imagenet_lt_features",
    "C18": "places_lt_features",
}
"""Where a benchmark is not called as its stage."""


def stage_of(claim):
    return BENCHMARKS.get(claim, STAGES[claim])


PAIRS = {
    "C1": [(FG, m, "few") for m in ("Balanced Softmax", "Decouple-cRT", "Fill-Up")],
    "C2": [(FG, "Fill-Up", "few")],
    "C3": [
        (FG, m, "few") for m in ("Decouple-LWS", "Balanced Softmax", "BALMS", "ResLT", "MiSLAS", "Fill-Up")
    ],
    "C4": [
        (FG, m, WORST)
        for m in ("ERM", "Mixup", "GroupDRO", "IRM", "LISA", "Balanced Softmax", "Decouple-cRT")
    ],
    "C5": [(FG, f"LDM-FG ({c})", m) for c in ("Loss", "Hardness") for m in ("overall", "few")],
    "C6": [(FG, f"LDM ({c})", m) for c in ("txt", "txt, img, dropout") for m in ("overall", "few")],
    "C11": [(f"{FG}, amount 1", f"{FG}, amount {a}", "few") for a in ("0", "0.25")],
    "C12": [
        (f"{FG}, weight 1", f"{FG}, weight 0", "few"),
        (f"{FG}, weight 1", f"{FG}, weight 0", "medium"),
        (f"{FG}, weight 0", f"{FG}, weight 1", "many"),
    ],
    "C13": [
        *((f"{FG}, w {w}", f"{FG}, w 0", WORST) for w in ("0.01", "0.03", "0.1")),
        *((f"{FG}, w 0.03", f"{FG}, w {w}", WORST) for w in ("0.01", "0.1")),
    ],
    "C14": [(FG, "LDM-FG (Combined)", "overall")],
    "C16": [(f"{FG} + VL-LTR", "VL-LTR", m) for m in ("few", "medium")],
}
"""The comparisons every claim needs, each above zero."""
VALUES = {
    **{claim: {("ERM", "few"): 8} for claim in ("C1", "C3", "C4", "C5", "C6", "C12", "C14", "C16")},
    "C2": {("Fill-Up", "n_synthetic"): 2000, (FG, "n_synthetic"): 1000},
    "C7": {
        (TEXT, "distance"): 40, (TEXT_IMAGE, "distance"): 20,
        (TEXT, "recognised"): 60, (TEXT_IMAGE, "recognised"): 85,
        (TEXT, "fid"): 18, (TEXT_IMAGE, "fid"): 14,
        (TEXT, "density"): 0.9, (TEXT_IMAGE, "density"): 1.0,
    },
    "C8": {
        (NONE, "covered"): 10, (HALF, "covered"): 14,
        (NONE, "recognised"): 80, (HALF, "recognised"): 78,
        (TEXT_IMAGE, "coverage"): 0.6, (SAME, "coverage"): 0.7,
        (TEXT_IMAGE, "few_val_accuracy"): 49, (SAME, "few_val_accuracy"): 54,
    },
    "C9": {
        (FG, "fid"): 21, (names.FG_HARDNESS, "fid"): 11,
        (FG, "coverage"): 0.6, (names.FG_HARDNESS, "coverage"): 0.8,
        (FG, "avg_val_accuracy"): 65, (names.FG_HARDNESS, "avg_val_accuracy"): 57,
    },
    "C10": {
        (SAME, "entropy"): 1.0, (names.EXACT_FIFTH, "kept"): 60,
        (names.EXACT_FIFTH, "entropy"): 1.9, (names.EXACT_EVERY, "entropy"): 2.0,
    },
    "C11": {
        (f"{FG}, amount 0", "few"): 30, (f"{FG}, amount 0", "many"): 60,
        (f"{FG}, amount 1", "few"): 40, (f"{FG}, amount 1", "many"): 62,
    },
    "C13": {(f"{FG}, w {w}", WORST): v for w, v in (("0", 40), ("0.01", 42), ("0.03", 46), ("0.1", 44))},
    "C15": {
        (PLANE, "minority_share"): 9, (PLANE_FG, "minority_share"): 18.5,
        (names.REAL_ONLY, "minority_accuracy"): 65, (PLANE, "minority_accuracy"): 66,
        (PLANE_FG, "minority_accuracy"): 85, (names.REAL_ONLY, "boundary_tilt"): 38.5,
        (PLANE, "boundary_tilt"): 38, (PLANE_FG, "boundary_tilt"): 30,
    },
    "C17": {
        (m, k): v for m, v in ((names.ERM, 70), (names.BALANCED_SOFTMAX, 75), (CHOSEN, 78))
        for k in ("overall", "few")
    },
    "C18": {
        (names.BALANCED_SOFTMAX, "overall"): 75, (names.FINE_TUNED, "overall"): 70, (CHOSEN, "overall"): 78,
    },
}  # fmt: skip
"""Values with which every claim holds."""


def rows(claim, scale="mini", seeds=3, benchmark=None, **changed):
    """changed: values=..., laid over those with which the claim holds; None leaves one out."""
    return pd.DataFrame(
        [
            dict(scale=scale, benchmark=benchmark or stage_of(claim), method=m, seed=s, metric=k,
                 value=v + 0.01 * s, split="final", selection="last epoch")
            for (m, k), v in (VALUES[claim] | changed.get("values", {})).items() if v is not None
            for s in range(seeds)
        ]
    )  # fmt: skip


def compared(claim, scale="mini", benchmark=None, **changed):
    """changed: means=..., as `values` of `rows`; without, every difference is 4 points, the interval ± 1."""
    means = dict.fromkeys(PAIRS.get(claim, ()), 4.0) | changed.get("means", {})
    return pd.DataFrame(
        [
            dict(scale=scale, benchmark=benchmark or stage_of(claim), method=a, reference=b, metric=m,
                 mean=mean, low=mean - 1, high=mean + 1, seeds=3, split="final")
            for (a, b, m), mean in means.items() if mean is not None
        ],
        columns=COMPARED,
    )  # fmt: skip


def decided(claim, results, comparisons):
    evidence, verdict, scale = verdicts.decide(rules.RULES[claim], results, comparisons)
    return {"evidence": evidence, "verdict": verdict, "scale": scale}


@pytest.mark.parametrize("claim", rules.RULES)
def test_a_claim_holds_with_clear_data_at_its_stage(root, claim):
    table = verdicts.claims(root / "data" / "paper", rows(claim), compared(claim))
    row = table.set_index("id").loc[claim]
    assert row["verdict"] == ("reproduced" if claim == "C15" else "direction holds"), row["evidence"]
    assert (row["stage"], row["scale"]) == (STAGES[claim], "mini")


@pytest.mark.parametrize("claim", rules.RULES)
def test_only_where_the_papers_own_experiment_was_run_is_a_claim_reproduced(claim):
    smoke, paper = (decided(claim, rows(claim, s), compared(claim, s)) for s in ("smoke", "paper"))
    assert smoke["verdict"] == "direction holds"
    never = claim in ("C7", "C8", "C9", "C10", "C17", "C18")
    assert paper["verdict"] == ("direction holds" if never else "reproduced")


@pytest.mark.parametrize(("claim", "pair"), [(c, pair) for c, pairs in PAIRS.items() for pair in pairs])
def test_every_comparison_of_a_claim_decides(claim, pair):
    opposite = decided(claim, rows(claim), compared(claim, means={pair: -4.0}))
    assert opposite["verdict"] == "does not hold"
    assert "-4.0 [-5.0, -3.0]" in opposite["evidence"]
    assert decided(claim, rows(claim), compared(claim, means={pair: 0.9}))["verdict"] == "does not hold"
    absent = decided(claim, rows(claim), compared(claim, means={pair: None}))
    assert (absent["verdict"], absent["evidence"].count("not run")) == ("not run", 1)


@pytest.mark.parametrize(
    ("claim", "method", "metric", "value"),
    [
        ("C7", TEXT_IMAGE, "distance", 45),
        ("C7", TEXT_IMAGE, "recognised", 55),
        ("C7", TEXT_IMAGE, "fid", 19),
        ("C7", TEXT_IMAGE, "density", 0.8),
        ("C8", HALF, "covered", 8),
        ("C8", HALF, "recognised", 69),
        ("C8", SAME, "coverage", 0.5),
        ("C8", SAME, "few_val_accuracy", 48),
        ("C9", FG, "fid", 10),
        ("C9", FG, "coverage", 0.9),
        ("C9", FG, "avg_val_accuracy", 56),
        ("C10", names.EXACT_FIFTH, "kept", 40),
        ("C10", names.EXACT_FIFTH, "entropy", 1.7),
        ("C10", SAME, "entropy", 2.1),
        ("C11", f"{FG}, amount 0", "few", 41),
        ("C11", f"{FG}, amount 1", "many", 71),
        ("C15", PLANE_FG, "minority_share", 8),
        ("C15", PLANE_FG, "minority_accuracy", 65.5),
        ("C15", names.REAL_ONLY, "minority_accuracy", 86),
        ("C15", PLANE_FG, "boundary_tilt", 38.2),
        ("C15", PLANE, "boundary_tilt", 29),
        ("C17", CHOSEN, "few", 74),
        ("C17", CHOSEN, "overall", 69),
        ("C18", names.BALANCED_SOFTMAX, "overall", 79),
        ("C18", names.FINE_TUNED, "overall", 79),
    ],
)
def test_the_opposite_of_any_part_does_not_hold(claim, method, metric, value):
    row = decided(claim, rows(claim, values={(method, metric): value}), compared(claim))
    assert row["verdict"] == "does not hold", row["evidence"]


PARTS = [(c, *key) for c in ("C7", "C8", "C9", "C10", "C11", "C15", "C17", "C18") for key in VALUES[c]]


@pytest.mark.parametrize(("claim", "method", "metric"), PARTS)
def test_without_any_part_a_claim_is_not_run(claim, method, metric):
    row = decided(claim, rows(claim, values={(method, metric): None}), compared(claim))
    assert row["verdict"] == "not run"
    assert ": not run" in row["evidence"]
    assert row["scale"] == "mini"


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ("C1", "Few, points over Balanced Softmax: +4.0 [+3.0, +5.0]; Few, points over Decouple-cRT: +4.0"),
        ("C2", "images of Fill-Up beyond 1.9 times FG's: +100.0 ± 0.0 (3 seeds)"),
        ("C3", "Few, points over MiSLAS: +4.0 [+3.0, +5.0]"),
        ("C4", "worst-group accuracy, points over Decouple-cRT: +4.0 [+3.0, +5.0]"),
        ("C5", "few, points over LDM-FG (Hardness): +4.0 [+3.0, +5.0]"),
        ("C6", "overall, points over the same sampler without feedback: +4.0 [+3.0, +5.0]"),
        ("C7", "FID taken away from text: +4.0 ± 0.0 (3 seeds)"),
        ("C8", "recognised as the class, points over no dropout, + 10: +8.0 ± 0.0 (3 seeds)"),
        ("C9", "accuracy of entropy over hardness, points: +8.0 ± 0.0 (3 seeds)"),
        ("C10", "entropy raised beyond 0.8 of that, %: +3.1 ± 0.0 (3 seeds)"),
        ("C11", "Few, points from a quarter to a full set: +4.0 [+3.0, +5.0]; gain of Few over that of "
                "Many, points: +8.0"),
        ("C12", "Many lost, points: +4.0 [+3.0, +5.0]"),
        ("C13", "w = 0.1 over 0, points: +4.0 [+3.0, +5.0]; w = 0.03 over 0.01, points: +4.0 [+3.0"),
        ("C14", "overall, points over LDM-FG (Combined): +4.0 [+3.0, +5.0]"),
        ("C15", "minority share of samples, points over unguided: +9.5 ± 0.0 (3 seeds)"),
        ("C16", "medium, points over VL-LTR: +4.0 [+3.0, +5.0]"),
        ("C17", "few, points over Balanced Softmax on real features: +3.0 ± 0.0 (3 seeds)"),
        ("C18", "overall, points over fine-tuning: +8.0 ± 0.0 (3 seeds)"),
    ],
)  # fmt: skip
def test_the_evidence_says_what_it_is(claim, text):
    assert text in decided(claim, rows(claim), compared(claim))["evidence"]


def test_what_is_run_here_stands_beside_a_method_that_is_not():
    means = {PAIRS["C1"][0]: -4.0, PAIRS["C1"][2]: None}
    row = decided("C1", rows("C1"), compared("C1", means=means))
    assert row["verdict"] == "not run"
    assert row["evidence"].startswith("Few, points over Balanced Softmax: -4.0 [-5.0, -3.0]; ")
    assert row["evidence"].endswith("; Few, points over Fill-Up: not run")


def test_c13_without_a_coefficient_and_without_the_best():
    only = dict.fromkeys(VALUES["C13"]) | {(FG, WORST): 40.0}
    row = decided("C13", rows("C13", values=only), compared("C13"))
    assert (row["verdict"], row["evidence"]) == ("not run", "worst-group accuracy over w = 0: not run")
    row = decided("C13", rows("C13"), compared("C13", means={PAIRS["C13"][-1]: None}))
    assert row["verdict"] == "not run"
    assert "w = 0.03 over 0.1, points: not run" in row["evidence"]


def test_comparisons_of_another_scale_or_benchmark_do_not_count():
    assert decided("C5", rows("C5"), compared("C5", scale="smoke"))["verdict"] == "not run"
    assert decided("C5", rows("C5"), compared("C5", benchmark="places_lt"))["verdict"] == "not run"
    nothing = decided("C5", rows("C5", benchmark="places_lt"), compared("C5"))
    assert (nothing["verdict"], nothing["evidence"]) == ("not run", "")


def test_the_largest_scale_decides():
    both = pd.concat([compared("C4", means={PAIRS["C4"][0]: -4.0}), compared("C4", scale="paper")])
    results = pd.concat([rows("C4"), rows("C4", scale="paper")])
    row = decided("C4", results, both)
    assert (row["verdict"], row["scale"]) == ("reproduced", "paper")


def test_one_seed_and_seeds_that_disagree_show_nothing():
    assert decided("C11", rows("C11", seeds=1), compared("C11"))["verdict"] == "does not hold"
    noisy = rows("C15")
    mine = (noisy["method"] == PLANE_FG) & (noisy["metric"] == "minority_accuracy")
    noisy.loc[mine, "value"] = [60.0, 90.0, 75.0]
    row = decided("C15", noisy, compared("C15"))
    assert row["verdict"] == "does not hold"
    assert "points over real only: +10.0 ± 37.2 (3 seeds)" in row["evidence"]


def test_evidence_as_text():
    assert str(rules.Evidence("gain", None)) == "gain: not run"
    assert str(rules.Evidence("gain", Bootstrap(-1.26, -2.0, 0.04))) == "gain: -1.3 [-2.0, +0.0]"
    assert str(rules.Evidence("gain", Interval(2.0, 0.5, 8))) == "gain: +2.0 ± 0.5 (8 seeds)"


def test_differences_are_paired_by_seed_and_none_where_not_run():
    ours = rules.Ours(rows("C11"), compared("C5"))
    none, full = (f"{FG}, amount {a}" for a in (0, 1))
    difference = ours.paired(full, none, "few")
    assert (difference.mean, difference.n) == (pytest.approx(10), 3)
    assert difference.half_width == pytest.approx(0, abs=1e-9)  # the seeds' common offset cancels
    assert ours.over(*PAIRS["C5"][0]) == Bootstrap(4.0, 3.0, 5.0)
    a, b, metric = PAIRS["C5"][0]
    assert ours.over(b, a, metric) == Bootstrap(-4.0, -5.0, -3.0)
    assert ours.paired(full, "Fill-Up", "few") is None
    assert ours.over(FG, "LDM-FG (Loss)", "many") is None


def test_the_rules_name_methods_that_are_printed_and_run(root):
    described = tables(root / "data/paper")

    def printed(table):
        return set(printed_numbers(root / "data/paper", table, described[table])["method"])

    assert {FG, "Fill-Up", "Balanced Softmax", "Decouple-cRT", TEXT} <= printed("table1_imagenet_lt")
    assert {"VL-LTR", f"{FG} + VL-LTR"} <= printed("table1_imagenet_lt")
    assert {a for pair in PAIRS["C3"] for a in pair[:2]} - {"BALMS"} <= printed("table2_places_lt")
    assert {a for pair in PAIRS["C4"] for a in pair[:2]} == printed("table3_nicopp") - LATER
    assert "LDM-FG (Combined)" in printed("table6_combined")
    run = table_4_rows(load(root / "params.yaml").mini.ablations.sampling)
    assert set(run) == printed("table4_ablation")
    assert {TEXT, TEXT_IMAGE, SAME, FG, names.FG_HARDNESS} <= set(run)


def test_a_rule_that_names_no_method_is_told():
    ours = rules.Ours(rows("C11"), compared("C5"))
    for ask in (ours.over, ours.paired):
        with pytest.raises(UserError, match=r"A rule: there is no method 'LDM FG \(Entropy\)'"):
            ask("LDM FG (Entropy)", FG, "few")


def test_every_claim_stands_there_with_a_rule_and_what_is_not_run_says_so(root):
    table = verdicts.claims(root / "data" / "paper", rows("C15"), compared("C15"))
    assert table["id"].tolist() == [f"C{i}" for i in range(1, 19)]
    assert set(rules.RULES) == set(table["id"])
    assert table.loc[table["verdict"] != "not run", "id"].tolist() == ["C15"]


def test_a_rule_for_an_unknown_claim_and_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"claims\.csv is missing"):
        verdicts.claims(tmp_path, rows("C15"), compared("C15"))
    (tmp_path / "claims.csv").write_text("id,paper,claim,quantity,value,where\nC1,p,c,q,v,w\n")
    with pytest.raises(UserError, match="has no claim C10, but there is a rule"):
        verdicts.claims(tmp_path, rows("C15"), compared("C15"))
