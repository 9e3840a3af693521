"""The way of an event through JSON and back: features of pydantic that would not survive it, and the reading end.

The gateway validates events against their class (``WEBUI_CHECK_EVENTS``), and the test kit reads events back. A class
must be able to read the JSON that ``emit`` writes of it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from eventbus.errors import InvalidPayload
from eventbus.events.annotations import annotation_parts, nested_models

__all__ = ["JsonTraits", "check_fields", "has_nan", "json_traits", "read_json"]


@dataclasses.dataclass(frozen=True, slots=True)
class JsonTraits:
    """How the JSON of a class differs from its members.

    Attributes:
        aliased: whether a member, or a member of a nested model, has another name in the JSON.
        may_have_nan: whether a nested model may contain NaN or infinity, which JSON cannot express.
        readable: whether the class can read its JSON; not with custom serializers.
        renamed: name in the JSON -> name that validation expects, where these differ.
        computed: names in the JSON of computed fields: validation does not know them.
    """

    aliased: bool
    may_have_nan: bool
    readable: bool
    renamed: Mapping[str, str]
    computed: frozenset[str]

    @property
    def plain(self) -> bool:
        """Whether the JSON has the names of the members, and no nested model may have NaN."""
        return not (self.aliased or self.may_have_nan)

    @property
    def same_names(self) -> bool:
        """Whether validation expects the names that the JSON has."""
        return not (self.renamed or self.computed)


def check_fields(cls: type[BaseModel], where: str) -> None:
    """Refuse fields that would not survive the way through JSON.

    Args:
        cls: an event class whose fields are known.
        where: names the class in messages.

    Raises:
        InvalidPayload: a field is excluded, or has an alias that cannot be read back.
    """
    for model in (cls, *nested_models(cls)):
        nested = "" if model is cls else f"{model.__qualname__}."
        for name, field in model.model_fields.items():
            if field.exclude or getattr(field, "exclude_if", None) is not None:
                raise InvalidPayload(
                    f"{where}: field {nested}{name} is excluded, so that no page receives it; remove it from the event",
                    field=name,
                )
            written, read = _written(name, field), _read(name, field)
            if read is None or (nested and written != read):
                raise InvalidPayload(
                    f"{where}: field {nested}{name} is written as {written!r} and cannot be read back; "
                    "give it one alias for both: Field(alias=…)",
                    field=name,
                )
        if nested and model.model_computed_fields and model.model_config.get("extra") == "forbid":
            raise InvalidPayload(
                f"{where}: {model.__qualname__} forbids extra members and has computed fields, so it cannot read its "
                "own JSON; allow extra members there",
                field=nested.rstrip("."),
            )


@cache
def json_traits(cls: type[BaseModel]) -> JsonTraits:
    """Return how the JSON of a class differs from its members.

    Args:
        cls: an event class.
    """
    models = (cls, *nested_models(cls))
    names = {_written(name, field): _read(name, field) or name for name, field in cls.model_fields.items()}
    computed = {name: field.alias or name for name, field in cls.model_computed_fields.items()}
    return JsonTraits(
        aliased=any(_has_alias(model) for model in models),
        may_have_nan=any(model.model_config.get("allow_inf_nan", True) for model in models[1:])
        or any(_dataclasses(cls)),
        readable=not any(_has_serializer(model) for model in models),
        renamed={written: read for written, read in names.items() if written != read},
        computed=frozenset(computed.values()),
    )


def read_json(cls: type[BaseModel], data: object) -> BaseModel:
    """Validate the payload of an event as it was sent.

    Args:
        cls: its class.
        data: the parsed JSON.

    Returns:
        The payload.

    Raises:
        pydantic.ValidationError: the data does not fit the class.
    """
    traits = json_traits(cls)
    if isinstance(data, dict) and not traits.same_names:
        data = {traits.renamed.get(name, name): value for name, value in data.items() if name not in traits.computed}
    # From JSON: its rules accept more than those for Python's values.
    return cls.model_validate_json(json.dumps(data))


def has_nan(value: object) -> bool:
    """Return whether a value contains NaN or infinity.

    Args:
        value: of any type; models, dataclasses, mappings and sequences are searched.
    """
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, BaseModel):
        return any(has_nan(getattr(value, name)) for name in type(value).model_fields)
    if dataclasses.is_dataclass(value):
        return any(has_nan(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return any(map(has_nan, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(has_nan, value))


def _written(name: str, field: FieldInfo) -> str:
    return field.serialization_alias or name


def _read(name: str, field: FieldInfo) -> str | None:
    """The name that validation expects; None: it expects a path."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        texts = [choice for choice in alias.choices if isinstance(choice, str)]
        written = _written(name, field)
        return written if written in texts else next(iter(texts), None)
    return name if alias is None else alias if isinstance(alias, str) else None


def _has_alias(model: type[BaseModel]) -> bool:
    fields = any(_written(name, field) != name for name, field in model.model_fields.items())
    return fields or any((field.alias or name) != name for name, field in model.model_computed_fields.items())


def _has_serializer(model: type[BaseModel]) -> bool:
    decorators = model.__pydantic_decorators__
    return bool(decorators.field_serializers or decorators.model_serializers)


def _dataclasses(cls: type[BaseModel]) -> Iterator[object]:
    for model in (cls, *nested_models(cls)):
        for field in model.model_fields.values():
            yield from (part for part in annotation_parts(field.annotation) if dataclasses.is_dataclass(part))
