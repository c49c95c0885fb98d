"""params.yaml read by DVC's rules (YAML 1.2), `extends` resolved, every value with the key that gives it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_text

Key = tuple[str, ...]
EXTENDS, BLOCKS = "extends", "blocks"
ScaleName = Literal["smoke", "mini", "evening", "paper"]
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
ALIAS = re.compile(r"\*\w")
"""What may be an alias; only then the file is parsed once more to find out."""


@dataclass(frozen=True)
class Node:
    """A resolved value: a plain one, or a mapping of nodes.

    key: where in params.yaml it is written; first: the same of the block that its keys were taken from first.
    """

    value: Any
    key: Key
    first: Key

    @property
    def plain(self) -> Any:
        """The value without where it is from."""
        if isinstance(self.value, dict):
            return {name: node.plain for name, node in self.value.items()}
        return self.value

    def written(self, key: Key) -> Key:
        """Where in params.yaml a resolved key is written; of a key that is missing, where it belongs."""
        if not key:
            return self.key
        if isinstance(self.value, dict):
            below = self.value.get(key[0])
            return (*self.first, *key) if below is None else below.written(key[1:])
        return (*self.key, *key)

    def leaves(self, key: Key = ()) -> Iterator[tuple[Key, "Node"]]:
        """Resolved keys and their values that are no mappings, or empty ones."""
        if isinstance(self.value, dict) and self.value:
            for name, node in self.value.items():
                yield from node.leaves((*key, name))
        else:
            yield key, self


def read(path: Path) -> dict[str, Any]:
    """params.yaml as it stands. Raises UserError naming the file, and the key that stands twice."""
    text = read_text(path)
    try:
        if ALIAS.search(text) and any(isinstance(e, AliasEvent) for e in YAML(typ="safe").parse(text)):
            raise UserError(
                f"{path}: an alias (*name) repeats a block, which `dvc exp run -S` misses: "
                f"move the block to `{BLOCKS}` and write `{EXTENDS}: NAME`."
            )
        raw = YAML(typ="safe").load(text)
    except DuplicateKeyError as error:
        name = str(error.problem).split('"')[1]
        line = error.problem_mark.line + 1
        raise UserError(f"{path}: key '{name}' stands twice (again in line {line}): remove one.") from error
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected keys with values, found {type(raw).__name__}.")
    return raw


@dataclass
class Resolver:
    """Resolves `extends`. Raises UserError, one sentence naming the key, where that cannot be."""

    raw: Mapping[str, Any]
    source: str
    used: dict[Key, set[Key]] = field(default_factory=dict)
    """Stages -> the blocks that they extend, directly or not; filled by `resolve`."""

    def resolve(self) -> Node:
        """Everything but the blocks. A block, or a key of one, that no stage takes is an error."""
        root = {name: self._part(name, value) for name, value in self.raw.items() if name != BLOCKS}
        resolved = Node(root, (), ())
        taken = {leaf.key for _, leaf in resolved.leaves()}
        used = set().union(*self.used.values())
        for block in self._blocks():
            if block not in used and block[0] != "smoke":
                raise self._error(block, "is a block that nothing extends: remove it")
            for key in _written(_find(self.raw, block), block):
                if key not in taken:
                    raise self._error(key, "has no effect, as no stage takes it from there: remove it")
        return resolved

    def _part(self, name: str, value: Any) -> Node:
        if name not in SCALES or not isinstance(value, Mapping):
            return self._node(value, (name,), (name,), ())
        keys = [(name, stage) for stage in value if stage != BLOCKS]
        return Node({key[1]: self._node(value[key[1]], key, key, ()) for key in keys}, (name,), (name,))

    def _node(self, value: Any, key: Key, stage: Key, within: tuple[Key, ...]) -> Node:
        """What is written at `key`, for a stage; within: the blocks that lead there, outermost first."""
        if not isinstance(value, Mapping):
            return Node(value, key, key)
        own = {
            name: self._node(below, (*key, str(name)), stage, within)
            for name, below in value.items()
            if name != EXTENDS
        }
        names = value.get(EXTENDS, [])
        bases = [self._base(n, key, stage, within) for n in (names if isinstance(names, list) else [names])]
        return reduce(_over, [*bases, Node(own, key, key)])

    def _base(self, name: Any, key: Key, stage: Key, within: tuple[Key, ...]) -> Node:
        known = self._blocks()
        of_all = (BLOCKS, str(name).removeprefix(f"{BLOCKS}."))
        places = [block for block in ((stage[0], BLOCKS, name), of_all) if block in known]
        if not places:
            names = ", ".join(sorted({block[-1] for block in known}))
            raise self._error((*key, EXTENDS), f"is {name!r}, and no block is called so: choose from {names}")
        # A block that extends its own name means the one of all scales.
        block = next((block for block in places if block not in within[-1:]), places[0])
        if block in within:
            raise self._error((*key, EXTENDS), f"is {name!r}, which goes in a circle: remove one `{EXTENDS}`")
        if not isinstance(_find(self.raw, block), Mapping):
            raise self._error(block, f"is {_find(self.raw, block)!r}: a block is a mapping of keys")
        self.used.setdefault(stage, set()).add(block)
        return self._node(_find(self.raw, block), block, stage, (*within, block))

    def _blocks(self) -> list[Key]:
        """Every block's key: those of all scales, those of each."""
        found = []
        for place in ((), *((scale,) for scale in SCALES)):
            blocks = _find(self.raw, (*place, BLOCKS))
            found += [(*place, BLOCKS, name) for name in (blocks if isinstance(blocks, Mapping) else ())]
        return found

    def _error(self, key: Key, what: str) -> UserError:
        return UserError(f"{self.source}: '{'.'.join(map(str, key))}' {what}.")


def _over(low: Node, high: Node) -> Node:
    """`high` laid over `low`, mapping by mapping."""
    if not (isinstance(low.value, dict) and isinstance(high.value, dict)):
        return high
    both = {name: _over(low.value[name], high.value[name]) for name in low.value.keys() & high.value.keys()}
    return Node({**low.value, **high.value, **both}, high.key, low.first)


def _find(raw: Any, key: Key) -> Any:
    for name in key:
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return raw


def _written(value: Any, key: Key) -> Iterator[Key]:
    """The keys of a block that hold values."""
    if isinstance(value, Mapping):
        for name in value:
            if name != EXTENDS:
                yield from _written(value[name], (*key, str(name)))
    else:
        yield key
