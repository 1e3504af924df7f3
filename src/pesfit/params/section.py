"""The base of all sections of params.yaml, and what their parameters mean and allow, read from the models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ParamsSection(BaseModel):
    """A frozen section of params.yaml: unknown keys are refused, nothing is converted from another type but int to float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class MaxFailed(ParamsSection):
    """Sections of stages that loop over molecules."""

    max_failed_fraction: Fraction = Field(0.05, description="Stop when a larger fraction of the molecules fails in this stage.")


_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
_KINDS = {"number": "a number", "integer": "a whole number", "string": "a string", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True)
class Parameter:
    """One line of `pesfit params`."""

    key: str
    default: str
    allowed: str
    description: str


@dataclass(frozen=True)
class Node:
    """One place in the models: its JSON schema, references resolved, and the names of its fields."""

    schema: dict[str, Any]
    names: tuple[str, ...]


def parameters(model: type[ParamsSection]) -> Iterator[Parameter]:
    """Yield every parameter of a model and of the sections in it, in the order of their definition."""
    schema = _schema(model)
    yield from _parameters(schema, schema["$defs"], "")


def _parameters(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Parameter]:
    for name, field in schema.get("properties", {}).items():
        resolved = _resolve(field, definitions)
        key = f"{prefix}{name}"
        items = resolved.get("items", {})
        if "properties" in resolved:
            yield from _parameters(resolved, definitions, f"{key}.")
        elif "properties" in _resolve(items, definitions):
            yield Parameter(key, "see params.yaml", allowed(resolved), field.get("description", ""))
            yield from _parameters(_resolve(items, definitions), definitions, f"{key}[].")
        else:
            default = json.dumps(field["default"]) if "default" in field else "required"
            yield Parameter(key, default, allowed(resolved), field.get("description", ""))


def field_at(model: type[ParamsSection], location: Sequence[str | int]) -> tuple[tuple[str | int, ...], Node]:
    """Follow a location into a model.

    Returns:
        The part of the location that names keys and list positions, and what is there.
    """
    schema = _schema(model)
    definitions = schema["$defs"]
    node = schema
    path: list[str | int] = []
    for part in location:
        if isinstance(part, int):
            node = node.get("items", {})
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif "properties" in node:  # an unknown key
            node = {}
        else:  # a validator's name for one alternative of a union
            break
        node = _resolve(node, definitions)
        path.append(part)
    return tuple(path), Node(node, tuple(node.get("properties", {})))


@cache
def _schema(model: type[ParamsSection]) -> dict[str, Any]:
    return model.model_json_schema()  # a third of a second


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        target: dict[str, Any] = definitions[schema["$ref"].rsplit("/", 1)[1]]
        return target | {key: value for key, value in schema.items() if key != "$ref"}
    return schema


def allowed(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema allows, such as `a number > 0 and <= 10`."""
    if "anyOf" in schema:
        options = list(dict.fromkeys(allowed(option | _bounds(schema)) for option in schema["anyOf"]))
        return " or ".join(options)
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        least = f" of at least {schema['minItems']}" if schema.get("minItems") else ""
        items = schema.get("items", {})
        return f"a list{least}" if not items or "$ref" in items else f"a list{least}, each {allowed(items)}"
    if schema.get("type") == "object":
        return "a mapping"
    bounds = " and ".join(f"{sign} {_plain(schema[key])}" for key, sign in _BOUNDS.items() if key in schema)
    kind = _KINDS.get(schema.get("type", ""), "a value")
    if schema.get("minLength"):
        kind = "a string that is not empty"
    return f"{kind} {bounds}".strip()


def _bounds(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in _BOUNDS if key in schema}


def _plain(number: float) -> str:
    """Write a bound without an exponent where it is a whole number."""
    return f"{int(number)}" if number == int(number) else f"{number:g}"
