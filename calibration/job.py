"""What crosses into a child process that makes a step's artifact: typed, frozen, closed values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from recipes.precision import Precision


class Value(BaseModel):
    """A frozen value without unknown fields; types are taken as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Parameters(Value):
    """What a step's key hashes, as JSON.

    An optional field that is None is absent from the JSON: a new one changes no key of a step without it.
    """

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        for name, field in type(self).model_fields.items():
            if field.default is None and document.get(name, self) is None:
                del document[name]
        return document

    def document(self) -> dict[str, Any]:
        """The JSON that the key hashes."""
        return self.model_dump(mode="json")


class Places(Value):
    """What this host knows and no key hashes: where things are, and caps."""


class NoPlaces(Places):
    """Of a step that needs only its inputs."""


P = TypeVar("P", bound=Parameters)
L = TypeVar("L", bound=Places)


class Job(Value, Generic[P, L]):
    """What a builder gets, by a file that its process reads: `build(job, progress)`."""

    kind: str
    """Row of the table of kinds (`pipeline.child.kinds`)."""
    params: P
    places: L
    inputs: Mapping[str, Path]
    """Role -> directory of the artifact; absent where the store has none of that key."""
    out: Path
    """Directory that the builder fills."""

    def document(self) -> dict[str, Any]:
        """The job as JSON, to be written by `json`: pydantic refuses paths that are not UTF-8."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """The job that `document` wrote; a list stands for a tuple, and text for a path."""
        return cls.model_validate(document, strict=False)


def _precision(value: Any) -> Precision:
    return value if isinstance(value, Precision) else Precision.parse(value)


FormatParam = Annotated[Precision, PlainValidator(_precision), PlainSerializer(Precision.as_param)]
"""Format of every linear: a name in JSON, or a default with exceptions."""
