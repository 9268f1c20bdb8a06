"""The JSON Schema of recipe files, generated from the schema: `python -m recipes.json_schema`."""

import json
import sys
from pathlib import Path
from typing import Any

from recipes.schema import Recipe

FILE = Path(__file__).with_name("recipe.schema.json")
"""The shipped copy; `make schema` writes it and a test compares it."""


def json_schema() -> dict[str, Any]:
    """The schema of a recipe file, with `matrix`, for completion and checks in editors."""
    schema = Recipe.model_json_schema()
    schema["properties"]["matrix"] = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "array", "minItems": 1},
        "description": "Dotted key -> values: one recipe per combination, each named after its values.",
    }
    # A matrix may set the format of each variant.
    required = [key for key in schema["required"] if key != "format"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Enginery recipe",
        "required": required,
        "anyOf": [{"required": ["format"]}, {"required": ["matrix"]}],
    }


def text() -> str:
    """The text of the shipped schema file."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
