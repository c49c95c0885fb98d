"""Values checked against their annotations where they enter: of dataclasses and of functions."""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache, partial, wraps
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, InstanceOf, create_model

from fgsynth.config.schema import validated

P = ParamSpec("P")
R = TypeVar("R")
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=())
"""No number in quotes, no truth for one, all finite; of a class that pydantic does not know any instance."""


class Checked:
    """Base of frozen dataclasses whose values are checked by pydantic when they are made.

    Raises UserError naming the class and every wrong key.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for key, value in _checked(kind, vars(self)).items():
            object.__setattr__(self, key, value)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arguments are checked; UserError names it and every wrong argument."""
    told = signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = told.bind(*args, **kwargs)
        given.apply_defaults()
        given.arguments.update(_checked(function, given.arguments))
        return function(*given.args, **given.kwargs)

    return call


def _checked(of: Any, values: dict[str, Any]) -> dict[str, Any]:
    model = _model(of)
    # NumPy's scalars count as Python's.
    given = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
    known = {key: value for key, value in given.items() if key in model.model_fields}
    return dict(validated(model, known, of.__qualname__))


@cache
def _model(of: Any) -> type[BaseModel]:
    """The fields of a dataclass, or the parameters of a function, as pydantic's fields."""
    fields: dict[str, Any] = {
        name: (_rule(p.annotation), ...)
        for name, p in signature(of).parameters.items()
        if p.annotation is not Parameter.empty and name[0] != "_"
    }
    return create_model(of.__name__, __config__=STRICT, **fields)


def _rule(hint: Any) -> Any:
    """What pydantic checks of a type: of dataclasses the class, as they checked themselves; not sequences."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        classes = tuple(part for part in parts if part is not NoneType)
        if len(classes) > 1 and all(isinstance(part, type) for part in classes):
            return Annotated[Any, AfterValidator(partial(_one_of, parts))]
        return Union[tuple(_rule(part) for part in parts)]  # noqa: UP007, of parts that are computed
    if isinstance(hint, type) and is_dataclass(hint):
        return Annotated[hint, InstanceOf()]  # type: ignore[type-arg]
    return hint if origin in (None, Literal, Annotated, tuple, Callable) else Any


def _one_of(classes: tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, classes):
        names = " or ".join(one.__name__ for one in classes if one is not NoneType)
        raise ValueError(f"input should be a {names}")
    return value
