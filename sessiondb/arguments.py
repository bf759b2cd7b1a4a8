"""The arguments of public calls, checked before anything is done.

A wrong type is `InvalidInput` that names the argument and says what it must be. Without this
rule it was whatever the first code that met it made of it: a TypeError of the driver, an
AttributeError, or a row whose column has another type.

The annotations are the rule, so there is no second list of types. Three things are left to code
that says more about them: what a message or an entry may be (`transcript`), the elements of lists,
and the words of the options of `open`. How many arguments there are, and their names, is
Python's own TypeError: mypy finds it.

A function's rules are made at its first call. From then on a check costs a tenth of a
microsecond for each argument that is given, and no argument that is left out.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .errors import InvalidInput

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
Fits = Callable[[object], bool]

_INTEGER_END = 2**63
"""The first number that no column can hold."""


def checks_arguments(cls: C) -> C:
    """Make the public methods of a class check their arguments."""
    for name, member in list(vars(cls).items()):
        if not name.startswith("_") and inspect.isfunction(member):
            setattr(cls, name, checked(member))
    return cls


def checked(function: F) -> F:
    """Make a function check its arguments."""
    rules: _Rules | None = None

    def check(args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        nonlocal rules
        if rules is None:  # at the first call: the names in annotations exist by then
            rules = _Rules(function)
        rules.check(args, given)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_later(*args: Any, **given: Any) -> Any:
            check(args, given)
            return await function(*args, **given)

        return typing.cast("F", call_later)

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        check(args, given)
        return function(*args, **given)

    return typing.cast("F", call)


class _Rules:
    """What each argument of one function must be."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self.in_order: list[tuple[str, Fits | None]] = []
        self.by_name: dict[str, Fits] = {}
        self.wanted: dict[str, str] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            kind = kind_of(function, parameter)
            fits = None if name == "self" else fits_of(kind)
            if parameter.kind is not parameter.KEYWORD_ONLY:
                self.in_order.append((name, fits))
            if fits is not None:
                self.by_name[name] = fits
                self.wanted[name] = _named(kind)

    def check(self, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        # Too many arguments are Python's to refuse.
        for (name, fits), value in zip(self.in_order, args, strict=False):
            if fits is not None and not fits(value):
                raise self._wrong(name, value)
        for name, value in given.items():
            fits = self.by_name.get(name)
            if fits is not None and not fits(value):
                raise self._wrong(name, value)

    def _wrong(self, name: str, value: object) -> InvalidInput:
        is_short = value is None or isinstance(value, str | int | float)
        shown = f"{value!r:.80}" if is_short else _a(type(value))
        return InvalidInput(
            f"{self.name}: {name} is {shown}, and must be {self.wanted[name]}. Nothing was done"
        )


def kind_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type that a parameter is annotated with. Any, if there is no annotation."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return Any
    if isinstance(annotation, str):  # of our own source, in whose module its names are
        return eval(annotation, getattr(function, "__globals__", {}))  # noqa: S307
    return annotation


def fits_of(kind: Any) -> Fits | None:
    """Return what tells whether a value is of a type. None: any value may be."""
    origin = typing.get_origin(kind)
    base = origin or kind
    if kind is None or kind is types.NoneType:
        return lambda value: value is None
    if origin in (typing.Union, types.UnionType):
        return _of_union(typing.get_args(kind))
    if origin is typing.Literal:
        words = frozenset(typing.get_args(kind))
        return lambda value: isinstance(value, str) and value in words
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    if base is collections.abc.Callable:
        return callable
    if base in _LISTS:
        return lambda value: isinstance(value, base) and not isinstance(value, str | bytes)
    if base in (object, Any) or not isinstance(base, type):
        return None
    if getattr(base, "_is_protocol", False) and not getattr(base, "_is_runtime_protocol", False):
        return None
    return lambda value: isinstance(value, base)


def _of_union(kinds: Iterable[Any]) -> Fits | None:
    kinds = tuple(kinds)
    if any((typing.get_origin(kind) or kind) is dict for kind in kinds):
        return None  # a message or an entry
    each = [fits_of(kind) for kind in kinds]
    every = [fits for fits in each if fits is not None]
    if len(every) < len(each):
        return None
    if len(every) == 2 and types.NoneType in kinds:
        [only] = [fits for fits, kind in zip(every, kinds, strict=True) if kind not in _NOTHING]
        return lambda value: value is None or only(value)
    return lambda value: any(fits(value) for fits in every)


def _is_integer(value: object) -> bool:
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and -_INTEGER_END <= value < _INTEGER_END
    )


def _is_number(value: object) -> bool:
    # What differs from itself is NaN. (`isnan` raises for whole numbers that no float can be.)
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


_NUMBERS: dict[Any, Fits] = {int: _is_integer, float: _is_number}
_LISTS = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_NOTHING = (None, types.NoneType)
_WORDS = {
    str: "a text",
    bytes: "bytes",
    int: "a whole number (64 bits)",
    float: "a number",
    bool: "True or False",
    dict: "a dict",
    tuple: "a tuple",
    collections.abc.Mapping: "a mapping",
    collections.abc.Sequence: "a list",
    collections.abc.Collection: "a collection",
    collections.abc.Iterable: "an iterable",
    collections.abc.Callable: "a function",
}


def _named(kind: Any) -> str:
    """Name a type, for an error."""
    origin = typing.get_origin(kind)
    if kind in _NOTHING:
        return "None"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_named, typing.get_args(kind)))
    if origin is typing.Literal:
        words = [repr(word) for word in typing.get_args(kind)]
        return f"one of {', '.join(words)}" if len(words) > 1 else words[0]
    base = origin or kind
    return _WORDS.get(base) or _a(base)


def _a(kind: Any) -> str:
    name = str(getattr(kind, "__name__", kind))
    return f"an {name}" if name[:1] in "AEIOUaeiou" else f"a {name}"
