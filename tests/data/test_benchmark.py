import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_bench import CLASSES, bench, manifest, table

from fgsynth.data.benchmark import COLUMNS, group_of, verify
from fgsynth.utils.errors import UserError

COUNTS = {"train": (3, 2, 0, 1), "val": (1, 1, 1, 1), "test": (2, 0, 1, 2)}
CONTEXTS = ("dim", "rock")


def test_rows_are_sorted_by_split_class_context_and_key():
    rows = table(COUNTS, 2).sample(frac=1, random_state=0).assign(more=1)
    m = manifest(COUNTS, CONTEXTS, table=rows)
    assert list(m.table.columns) == COLUMNS
    assert m.table["split"].drop_duplicates().tolist() == ["train", "val", "test"]
    for split in COUNTS:
        part = m.rows(split)
        assert part[["label", "context", "key"]].apply(tuple, axis=1).is_monotonic_increasing
        assert part.index.tolist() == list(range(sum(COUNTS[split])))


def test_the_digest_is_of_the_data_set_not_of_the_order_of_its_rows():
    first, rows = manifest(COUNTS, CONTEXTS), table(COUNTS, 2)
    for seed in range(3):
        shuffled = rows.sample(frac=1, random_state=seed).assign(more=seed)
        assert manifest(COUNTS, CONTEXTS, table=shuffled).digest == first.digest
    assert len(first.digest) == 64


@pytest.mark.parametrize(
    ("column", "value"), [("key", "other"), ("split", "final"), ("label", 1), ("context", 1)]
)
def test_any_change_of_a_row_changes_the_digest(column, value):
    rows = table(COUNTS, 2)
    rows.loc[0, column] = value
    assert manifest(COUNTS, CONTEXTS, table=rows).digest != manifest(COUNTS, CONTEXTS).digest


def test_a_row_less_and_other_names_change_the_digest():
    first = manifest(COUNTS, CONTEXTS)
    others = [
        manifest(COUNTS, CONTEXTS, table=table(COUNTS, 2).iloc[1:]),
        manifest(COUNTS, CONTEXTS, name="other"),
        manifest(COUNTS, CONTEXTS, classes=("ant", "yak")),
        manifest(COUNTS, ("dim", "snow")),
        manifest(COUNTS, CONTEXTS, source="drawn anew"),
    ]
    assert len({m.digest for m in [first, *others]}) == len(others) + 1


def test_counts_of_classes_and_groups():
    m = manifest(COUNTS, CONTEXTS)
    assert m.counts().tolist() == [5, 1]
    assert m.group_counts().tolist() == [3, 2, 0, 1]
    assert m.counts("test").tolist() == [2, 3]
    assert m.group_counts("test").tolist() == [2, 0, 1, 2]
    assert group_of(m.rows("test"), m).tolist() == [0, 0, 2, 3, 3]
    last = manifest({"train": (2, 1), "test": (1, 0)})
    assert last.counts("test").tolist() == last.group_counts("test").tolist() == [1, 0]


def changed(row, **values):
    rows = table(COUNTS, 2)
    for column, value in values.items():
        rows.loc[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (table(COUNTS, 2).drop(columns="context"), "tiny has no column 'context': it needs key, split, lab"),
        (changed(0, split="valid"), "tiny: unknown split 'valid'; choose one of train, val, test, final"),
        (changed(1, label=2), "tiny: image train-0-1 has label 2: give integers from 0 to 1"),
        (changed(1, label=-1), "image train-0-1 has label -1"),
        (changed(1, context=2), "image train-0-1 has context 2: give integers from 0 to 1"),
        (changed(6, key="train-0-1"), "tiny: image train-0-1 is there twice; splits must not share"),
        (changed(5, label=0), "tiny: class 'bee' is in val but has no training image: add some or leave"),
    ],
)
def test_a_wrong_table_is_refused(rows, sentence):
    with pytest.raises(UserError, match=sentence):
        manifest(COUNTS, CONTEXTS, table=rows)


def test_a_split_that_is_not_there_is_named():
    with pytest.raises(UserError, match="tiny has no split 'final': choose one of train, val"):
        manifest(COUNTS, CONTEXTS).rows("final")


def test_another_data_set_than_written_down_is_refused(tmp_path):
    m, path = manifest(COUNTS, CONTEXTS), tmp_path / "digests.json"
    with pytest.raises(UserError, match=r"digests\.json is missing"):
        verify(m, path, "mini")
    path.write_text(json.dumps({"tiny": {"mini": m.digest, "smoke": "0" * 64}}))
    verify(m, path, "mini")
    verify(m, path, "paper")  # of which nothing was written down
    with pytest.raises(UserError, match=f"tiny at scale smoke has digest {m.digest[:12]}, .* says 0{{12}}: "):
        verify(m, path, "smoke")


def test_prompts_name_the_context_where_there_is_one():
    assert bench(COUNTS, CONTEXTS).prompt(1, 0) == "bee in dim"
    assert bench({"train": (1, 1)}).prompt(1, 0) == CLASSES[1]


def test_hidden_factors_are_drawn_once_per_split_and_only_where_they_are_known():
    asked = []

    def factors(rows):
        asked.append(rows["key"].tolist())
        return rows[["key"]]

    made = bench({"train": (2, 2), "val": (1, 2)})
    known = replace(made, factors=factors)
    assert known.hidden("val") is known.hidden("val")
    assert known.hidden("val")["key"].tolist() == made.manifest.rows("val")["key"].tolist()
    assert asked == [made.manifest.rows("val")["key"].tolist()]
    with pytest.raises(UserError, match="hidden factors of tiny are not known"):
        replace(made, factors=None).hidden("val")


def test_a_name_never_leads_out_of_the_folder_of_its_results():
    for name in ("../x", "a/b", "..", ".hidden", "c\\d"):
        odd = replace(manifest(COUNTS, CONTEXTS), name=name)
        assert Path("work", odd.folder).parent == Path("work")
        assert odd.name == name
    assert replace(manifest(COUNTS, CONTEXTS), name="imagenet_lt").folder == "imagenet_lt"
