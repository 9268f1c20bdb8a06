"""Reads the types of config.json's fields off the configuration classes of the pinned transformers.

`python -m tests.pipeline.models.config_types` writes them to pipeline/models/types.json.
"""

import dataclasses
import inspect
import json
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import ForwardRef, Literal, Union, get_args, get_origin

import transformers
from transformers.modeling_rope_utils import RopeParameters

from pipeline.models import config_json
from pipeline.models.config_json import readers

FILE = Path(config_json.__file__).with_name("types.json")

NAMES = {NoneType: "null", bool: "bool", int: "int", float: "float", str: "str", dict: "object"}


def alternatives(annotation):
    """Yields the types of an annotation, as the table names them; ForwardRefs are checked by nobody."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        for each in inner:
            yield from alternatives(each)
    elif origin is Literal:
        yield list(inner)
    elif origin is list:
        yield f"list of {NAMES[inner[0]]}"
    elif origin is dict:
        if inner[0] is str:  # names of a JSON object are strings
            yield f"object of {NAMES[inner[1]]}"
    elif annotation is not RopeParameters:  # a TypedDict, which no value is an instance of
        yield NAMES[annotation]


def bounded(field):
    """The types of a field; one with a validator is a real number at most so large."""
    types = list(alternatives(field.type))
    if not field.metadata:
        return types
    (interval,) = field.metadata["validator"]
    bounds = inspect.getclosurevars(interval).nonlocals
    assert types == ["float"], field
    assert bounds["min"] == -math.inf, field
    assert not bounds["exclude_max"], field
    return [f"float at most {bounds['max']}"]


def anything(annotation) -> bool:
    """Whether no type is checked: a union with a ForwardRef takes every value."""
    return any(isinstance(each, ForwardRef | str) for each in (annotation, *get_args(annotation)))


def generated():
    """The table: model type -> field -> types."""
    classes = [getattr(transformers, architecture).config_class for architecture in readers()]
    return {
        each.model_type: {
            field.name: bounded(field)
            for field in dataclasses.fields(each)
            if field.init and not anything(field.type)
        }
        for each in classes
    }


def text() -> str:
    """The table as the file holds it: a line for each field."""
    blocks = (
        f" {json.dumps(kind)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(types)}" for name, types in sorted(of.items()))
        + "\n }"
        for kind, of in generated().items()
    )
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text())
