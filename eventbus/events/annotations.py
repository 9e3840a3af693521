"""Annotations of a model and all that they contain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel

__all__ = ["annotation_parts", "nested_models"]


def annotation_parts(annotation: object) -> Iterator[object]:
    """Yield an annotation and everything within it: ``dict[str, list[Item] | None]`` contains ``Item``.

    Args:
        annotation: of a field.
    """
    yield annotation
    for argument in get_args(annotation):
        yield from annotation_parts(argument)


def nested_models(cls: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the models within the fields of a class, at any depth, without the class itself.

    Args:
        cls: a complete model.
    """
    found: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = [cls]
    while waiting:
        for field in waiting.pop().model_fields.values():
            for part in annotation_parts(field.annotation):
                if isinstance(part, type) and issubclass(part, BaseModel) and part is not cls and part not in found:
                    found[part] = None
                    waiting.append(part)
    return list(found)
