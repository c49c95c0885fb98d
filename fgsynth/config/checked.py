"""Values checked against their annotations where they enter: of dataclasses and of functions."""

from collections.abc import Callable
from functools import cache, wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, create_model

from fgsynth.config.schema import validated

P = ParamSpec("P")
R = TypeVar("R")
STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
"""No number in quotes, no truth for a number; of a class that pydantic does not know any instance."""


class Checked:
    """Base of frozen dataclasses whose values are checked by pydantic when they are made.

    Raises UserError naming the class and every wrong key.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for key, value in validated(_model(kind), vars(self), kind.__name__):
            object.__setattr__(self, key, value)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arguments are checked; UserError names it and every wrong argument."""
    told = signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = told.bind(*args, **kwargs)
        given.apply_defaults()
        given.arguments.update(validated(_model(function), given.arguments, function.__name__))
        return function(*given.args, **given.kwargs)

    return call


@cache
def _model(of: Any) -> type[BaseModel]:
    """The fields of a dataclass, or the parameters of a function, as pydantic's fields."""
    fields: dict[str, Any] = {name: (p.annotation, ...) for name, p in signature(of).parameters.items()}
    return create_model(of.__name__, __config__=STRICT, **fields)
