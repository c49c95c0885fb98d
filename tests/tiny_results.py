"""Tidy results of a few numbers, for tests."""

import pandas as pd


def tidy(benchmark, scale="mini", draw=0, **values):
    """values: method, or method and metric with a colon between -> one number per seed.

    A billionth apart from those of others, as draws that agree to the last digit decide nothing.
    """
    keys = {key: (*key.split(":"), "overall")[:2] for key in values}
    return pd.DataFrame(
        [
            dict(scale=scale, benchmark=benchmark, method=keys[key][0], seed=seed, metric=keys[key][1],
                 value=value + 1e-9 * (i + 1) * seed**2, split="final", selection="last epoch", draw=draw)
            for i, (key, per_seed) in enumerate(values.items())
            for seed, value in enumerate(per_seed)
        ]
    )  # fmt: skip
