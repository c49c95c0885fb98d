from fgsynth.pretrain.scores import MAJORITY, Setting, other_contexts, subjects, weakest


def row(cfg, share, context=1.0, level=0):
    return {"image": True, "cfg": cfg, "noise_level": level, "class": share, "context": context}


def test_the_weakest_setting_as_good_as_the_best():
    # With 100 images the standard error at 80 % is 4 points.
    assert weakest([row(1.5, 0.75), row(2.0, 0.77), row(3.0, 0.8)], 100) == Setting(2.0)
    assert weakest([row(1.5, 0.75), row(2.0, 0.75), row(3.0, 0.8)], 100) == Setting(3.0)
    assert weakest([row(2.0, 0.9, level=0), row(2.0, 0.9, level=200)], 100) == Setting(2.0, 0)


def test_a_setting_whose_context_loses_does_not_count_unless_all_do():
    assert weakest([row(1.5, 1.0, context=0.5), row(2.0, 0.8)], 100) == Setting(2.0)
    assert weakest([row(1.5, 0.9, context=0.5), row(2.0, 0.7, context=0.6)], 100) == Setting(1.5)


def test_a_perfect_share_has_an_error_too():
    assert weakest([row(1.5, 0.999), row(2.0, 1.0)], 100) == Setting(1.5)


def test_prompted_contexts_are_all_five_others():
    factors = subjects("a test", 2, MAJORITY)
    asked = other_contexts(factors)
    assert not (factors["context"] == asked).any()
    pairs = factors.assign(asked=asked).groupby(["context", "asked"]).size()
    assert len(pairs) == 30
    assert pairs.min() >= 9  # of 288
