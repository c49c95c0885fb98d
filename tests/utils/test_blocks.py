import pytest

from fgsynth.utils.blocks import fill, with_block
from fgsynth.utils.errors import UserError

START, END = "<!--table-->", "<!--/table-->"


def test_only_what_stands_between_the_marks_is_replaced():
    once = with_block(f"before\n\n{START}\nold | table\n{END}\n\nafter\n", "table", "| new |\n| --- |")
    assert once == f"before\n\n{START}\n\n| new |\n| --- |\n\n{END}\n\nafter\n"
    assert with_block(once, "table", "| new |\n| --- |") == once
    assert with_block(f"of {START}1 %{END} only", "table", "2 %") == f"of {START}2 %{END} only"
    for unmarked in ("no marks\n", f"{END} the wrong way {START}", f"only {START}", f"only {END}"):
        assert with_block(unmarked, "table", "| new |") == unmarked


def test_a_file_is_filled_and_one_that_is_not_there_is_named(tmp_path):
    file = tmp_path / "README.md"
    with pytest.raises(UserError, match=r"README\.md is missing"):
        fill(file, {"table": "2 %"})
    file.write_text(f"a {START}{END} b <!--other-->1<!--/other-->\n")
    fill(file, {"table": "2 %", "unknown": "3"})
    assert file.read_text() == f"a {START}2 %{END} b <!--other-->1<!--/other-->\n"
