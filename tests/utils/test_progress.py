import subprocess
import sys

import pytest

CODE = """
import sys
{first}
from fgsynth.utils.progress import progress
assert list(progress(range(3), "counting")) == [0, 1, 2]
"""


@pytest.mark.parametrize(
    ("first", "quiet", "seen"),
    [
        ("", False, False),  # a log file
        ("sys.stderr.isatty = lambda: True", False, True),  # a terminal
        ("sys.modules['ipykernel'] = sys", False, True),  # a kernel: no terminal, but a reader
        ("sys.modules['ipykernel'] = sys", True, False),  # a kernel the pipeline started
        ("sys.stderr.isatty = lambda: True", True, False),
    ],
)
def test_a_bar_is_shown_where_somebody_can_see_it(first, quiet, seen, monkeypatch):
    if quiet:
        monkeypatch.setenv("FGSYNTH_QUIET", "1")
    else:
        monkeypatch.delenv("FGSYNTH_QUIET", raising=False)
    code = CODE.format(first=first)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("counting" in out.stderr) == seen
