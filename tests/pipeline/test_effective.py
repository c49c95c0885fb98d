import pytest

from fgsynth.pipeline import commands as cli
from fgsynth.pipeline.effective import table
from fgsynth.utils.errors import UserError


def rows(text):
    return {line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines()}


def test_every_value_is_shown_with_what_sets_it(root):
    shown = rows(table(root, "nicopp", "mini"))
    assert shown["sampling.fill_to"] == ["mini.nicopp.sampling.fill_to", "8"]
    assert shown["sampling.n_steps"] == ["mini.blocks.sampling.n_steps", "12"]
    assert shown["sampling.cfg"] == ["blocks.sampling.cfg", "3.0"]
    assert shown["sampling.stop"] == ["blocks.sampling.stop", "null"]
    assert shown["sampling.reuse"] == ["(default)", "false"]
    assert rows(table(root, "nicopp", "paper"))["world.source"][0] == "paper.blocks.nicopp_world.source"


def test_without_a_scale_it_is_that_of_the_file(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert cli.main(["params", "toy_2d"]) == 0
    assert capsys.readouterr().out == table(root, "toy_2d", "mini") + "\n"


def test_at_scale_smoke_the_notebook_gives_the_values(checkout):
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("toy_2d: {}", "toy_2d: {seeds: 7}"))
    shown = rows(table(checkout, "toy_2d", "smoke"))
    assert shown["seeds"] == ["smoke.toy_2d.seeds", "7"]
    assert shown["n_samples"] == ["notebooks/01_toy_2d.ipynb", "1000"]


def test_stages_without_a_notebook_have_one_scale(root):
    shown = rows(table(root, "feedback_map"))
    assert shown["sampling.n_steps"] == ["feedback_map.sampling.n_steps", "12"]
    assert shown["training.rate"] == ["blocks.training.rate", "0.01"]
    assert rows(table(root, "pretrain"))["clip.batch"] == ["pretrain.clip.batch", "256"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("toy", None), "No stage 'toy': choose one of"),
        (("own_pictures", None), "`own_pictures` is `own_images` now."),
        (("toy_2d", "full"), "No scale 'full': choose one of smoke, mini, evening, paper."),
    ],
)
def test_a_stage_or_scale_there_is_not_is_one_sentence(root, asked, sentence):
    with pytest.raises(UserError, match=sentence):
        table(root, *asked)
