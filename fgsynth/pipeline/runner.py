"""One notebook stage: check, run with papermill into a staging folder, publish whole or not at all."""

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from fgsynth.config import names
from fgsynth.config.params import check_stage, load
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evidence import RUN
from fgsynth.pipeline import notebook as nb
from fgsynth.utils import paths
from fgsynth.utils.errors import UserError
from fgsynth.utils.progress import QUIET

INJECTED = ("scale", "reports", "runs")
"""Parameters every notebook declares and the pipeline fills in."""
PARTS = ("benchmarks", "draw")
"""As these, in the notebooks that can be run on one of their benchmarks alone, on further draws of them."""
STAGING = ".staging"
SOURCES = ("fgsynth", "notebooks", "params.yaml", "requirements.lock", "data")
"""What a stage's numbers follow from; what git ignores in them is none of it."""


def merged_parameters(
    stage: str, declared: dict[str, Any], overrides: dict[str, Any], path: Path
) -> dict[str, Any]:
    """The notebook's own parameters with the overrides laid over them, checked by the stage's model.

    papermill only warns about a parameter the notebook does not declare; here it is an error.
    """
    missing = [name for name in INJECTED if name not in declared]
    if missing:
        raise UserError(f"{path}: the parameters cell does not declare {', '.join(missing)}: add it.")
    unknown = sorted(set(overrides) - set(declared))
    if unknown:
        raise UserError(
            f"{path} does not declare the parameter '{unknown[0]}': check its spelling in params.yaml "
            "or add it to the notebook's parameters cell."
        )
    values = {**declared, **overrides}
    check_stage(
        stage, {k: v for k, v in values.items() if k not in (*INJECTED, *PARTS)}, f"{path}, parameters"
    )
    return values


def run(target: str, scale: str | None = None) -> None:
    """Run the notebook of a stage, at the scale of params.yaml or another, and publish what it made.

    target: a stage, or a part of one as `names.target` reads it, which is published under that name. Raises
    UserError with one sentence for anything wrong; the traceback of a notebook that raises is in the copy
    the sentence names. What was published by an earlier run stays until the new run is complete.
    """
    root = paths.root()
    params = load(root / "params.yaml").at(scale)
    stage, benchmark, draw = names.target(target)
    overrides = params.overrides(stage)
    name = NOTEBOOKS[stage]
    source = root / "notebooks" / f"{name}.ipynb"
    cleaned = nb.clean(nb.read(source))
    values = merged_parameters(stage, nb.parameters(cleaned, source), overrides, source)
    for part, value in zip(PARTS, (benchmark and [benchmark], draw), strict=True):
        if value is None:
            continue
        if part not in values:
            raise UserError(f"{source} has no parameter '{part}': run '{stage}' itself.")
        values[part] = value
    for folder in ("reports", "data"):
        _require_writable(root / folder)
    staging = root / STAGING / target
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    values |= {
        "scale": params.scale,
        "reports": str((staging / "reports").relative_to(root)),
        "runs": str((staging / "data" / "runs").relative_to(root)),
    }
    commit, started = checked_out(root), monotonic()
    _execute(root, staging, name, nb.to_text(cleaned), values)
    note(staging / "reports" / stage, commit, started)
    _publish(root, staging, stage, root / "reports" / params.scale / target, name)


def note(folder: Path, commit: str, started: float) -> None:
    """Write down in a folder what a run that began at `started` (`monotonic`) was made with, and its time."""
    noted = {"commit": commit, "seconds": round(monotonic() - started)}
    noted |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine()}
    paths.write_text(folder / RUN, json.dumps(noted, indent=2) + "\n")


def checked_out(root: Path) -> str:
    """The commit that is checked out, with "-dirty" where `SOURCES` differ from it; empty without git."""
    # A copy without .git may lie inside a clone of something else.
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    head, changed = (
        subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=False).stdout
        for command in (
            ["rev-parse", "--quiet", "--verify", "HEAD"],
            ["status", "--porcelain", "--", *SOURCES],
        )
    )
    return head.strip() + "-dirty" * bool(head and changed)


def _execute(root: Path, staging: Path, name: str, source: str, values: dict[str, Any]) -> None:
    copy, executed = staging / "source.ipynb", staging / "executed.ipynb"
    copy.write_text(source, encoding="utf-8")
    os.environ[QUIET] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    try:
        papermill.execute_notebook(
            copy,
            executed,
            values,
            cwd=root,
            progress_bar=sys.stderr.isatty(),
            kernel_name="python3",
            extra_arguments=["--log-level=40"],
        )
    except KeyboardInterrupt:
        # At exit it would tell of the kernel, which ends as well.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except NoSuchKernel as error:
        raise UserError("No Jupyter kernel 'python3' in this environment: run 'make env'.") from error
    except (PapermillExecutionError, DeadKernelError) as error:
        kept = staging / f"{name}.failed.ipynb"
        executed.replace(kept)
        reason = (
            f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else str(error)
        )
        raise UserError(
            f"notebooks/{name}.ipynb raised {' '.join(reason.split())}; nothing was published, "
            f"the traceback is in {kept.relative_to(root)}."
        ) from None


def _machine() -> str:
    """What a stage ran on."""
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {system}"


def _publish(root: Path, staging: Path, stage: str, published: Path, name: str) -> None:
    """Move what the notebook made to its place, after making sure that all of it is there."""
    executed = nb.normalise(nb.read(staging / "executed.ipynb"))
    made, runs = staging / "reports" / stage, root / "data" / "runs"
    paths.write_text(made / f"{name}.ipynb", nb.to_text(executed))
    moves = {
        made: published,
        made.with_suffix(".json"): published.with_suffix(".json"),
        staging / "data" / "runs" / stage: runs / published.relative_to(root / "reports"),
    }
    for needed in (made / "results.csv", made / "figures", *moves):
        if not needed.exists():
            raise UserError(
                f"notebooks/{name}.ipynb ended without writing {needed.relative_to(staging)}: "
                "it must call Output."
            )
    for new, old in moves.items():
        old.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            shutil.rmtree(old)
        new.replace(old)
    shutil.rmtree(staging)


def _require_writable(folder: Path) -> None:
    with paths.atomic(folder / ".writable"):
        pass
    (folder / ".writable").unlink()
