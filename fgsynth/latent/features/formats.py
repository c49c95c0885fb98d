"""Formats of ready-made features: npz, safetensors and parquet as named arrays; nothing is unpickled."""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fgsynth.data import benchmark
from fgsynth.utils.errors import UserError

REST = "rest"
"""The features that complete the long-tailed training set to a balanced one, for the row of the full set."""
SPLITS = (*benchmark.SPLITS, REST)
Arrays = dict[str, NDArray[Any]]
"""What a file holds: "features", "label" and, if there, "split" and "classes"."""


def _read_npz(path: Path) -> Arrays:
    held, key = {}, "the archive"
    try:
        # Opened here: numpy would leave a file open that it cannot read, and takes a bare array for one.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                held[key] = archive[key]
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
        raise _unreadable(path, error, key) from error
    return held


def _write_npz(path: Path, held: Arrays) -> None:
    np.savez(path, allow_pickle=False, **held)


def _read_safetensors(path: Path) -> Arrays:
    try:
        with safe_open(path, "pt") as file:
            told: Mapping[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    # numpy has no bfloat16.
    held: Arrays = {k: (t.float() if t.is_floating_point() else t).numpy() for k, t in tensors.items()}
    if "split" in held:
        code = held["split"]
        if code.dtype.kind not in "iu" or ((code < 0) | (code >= len(SPLITS))).any():
            raise UserError(
                f"{path}: key 'split' must hold integers 0 to {len(SPLITS) - 1}: {', '.join(SPLITS)}."
            )
        held["split"] = np.array(SPLITS)[code]
    return held | _classes_of(path, told)


def _write_safetensors(path: Path, held: Arrays) -> None:
    tensors = {key: torch.from_numpy(held[key]) for key in ("features", "label")}
    tensors["split"] = torch.tensor([SPLITS.index(name) for name in held["split"]])
    save_file(tensors, path, {"classes": json.dumps(held["classes"].tolist())})


def _read_parquet(path: Path) -> Arrays:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    held: Arrays = {}
    for key in {"label", "split"} & set(table.column_names):
        column = table.column(key)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(f"{path}: row {row} has no {key}: give one or leave the row out.")
        values = column.to_numpy()
        held[key] = values.astype(np.str_) if values.dtype.kind == "O" else values
    features = _parquet_features(path, table)
    told = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return held | ({} if features is None else {"features": features}) | _classes_of(path, told)


def _parquet_features(path: Path, table: Any) -> NDArray[Any] | None:
    names = [name for name in table.column_names if re.fullmatch(r"f\d+", name)]
    if "feature" in table.column_names:
        return _lists(path, table.column("feature"))
    for i in range(len(names)):
        if f"f{i}" not in names:
            raise UserError(f"{path} has no column 'f{i}': features need all of f0 to f{len(names) - 1}.")
    columns = [table.column(f"f{i}").to_numpy() for i in range(len(names))]
    return np.stack(columns, 1) if columns else None


def _lists(path: Path, column: Any) -> NDArray[Any]:
    """A column of lists, all of one length, as (n, k)."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(kind(column.type) for kind in kinds):
        raise UserError(f"{path}: column 'feature' is {column.type}: give lists of numbers.")
    length = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    odd = np.flatnonzero(length != length[:1])
    if odd.size:
        raise UserError(
            f"{path}: row {odd[0]} of column 'feature' has {length[odd[0]]} numbers, row 0 has {length[0]}: "
            "give all rows the same."
        )
    values = pc.list_flatten(column).to_numpy()
    return values.reshape(len(length), -1) if values.size else np.empty((len(length), 0))


def _write_parquet(path: Path, held: Arrays) -> None:
    features = held["features"]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    table = pa.table({"feature": lists, "label": held["label"], "split": held["split"].tolist()})
    names = json.dumps(held["classes"].tolist())
    pq.write_table(table.replace_schema_metadata({"classes": names}), path)


def _classes_of(path: Path, metadata: Mapping[str, str]) -> Arrays:
    """The names of the classes in a file's metadata, if any."""
    if "classes" not in metadata:
        return {}
    try:
        names = json.loads(metadata["classes"])
    except ValueError as error:
        raise UserError(f"{path}: 'classes' in the metadata is not JSON: give a list of names.") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: 'classes' in the metadata is no list of names: give one name per class.")
    return {"classes": np.array(names, dtype=np.str_)}


def _unreadable(path: Path, error: Exception, key: str = "the file") -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".:")
    return UserError(f"{path} is not a readable file of features ({key}: {reason}): write it anew.")


READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}
"""Suffix -> path -> arrays, as they are; raises UserError naming file and key for what cannot be read."""
WRITERS: dict[str, Callable[[Path, Arrays], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
}
"""Suffix -> path, all four arrays."""
