"""`engine.options` of backend `trtllm_torch`: the LLM API keys of one version of TensorRT-LLM."""

from functools import cache
from typing import Any, ClassVar, cast

from pydantic import Field, ValidationError, create_model, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.engines.trtllm_torch.llm_options import Option, Table, tables
from pipeline.engines.trtllm_torch.problems import OBJECTS, OURS, OWNED, problems
from recipes.frozen import Frozen


class Options(Frozen):
    """Keys that a version takes and that no other field of the recipe gives; base of each version's model."""

    version: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _known(cls, options: Any) -> Any:
        """Checks every key, nested ones too, against the version's table."""
        if not isinstance(options, dict):
            return options
        # The fields below take anything: the table is where types are.
        wrong = problems(options, tables()[cls.version])
        if wrong:
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError("llm_api", "{message}", {"message": problem.message}),
                        loc=problem.path,
                        input=problem.value,
                    )
                    for problem in wrong
                ],
            )
        return options


@cache
def model(version: str) -> type[Options]:
    """The model of a version that has a table."""
    table = tables()[version]
    # The parent of a nested key stays open to its other keys.
    owned = {path[0] for path in OWNED if len(path) == 1} | {*OURS, *OBJECTS}
    fields: dict[str, Any] = {
        name: (Any, Field(default=None, description=_described(option, table)))
        for name, option in table.options.items()
        if name not in owned
    }
    options = create_model(f"Options{version.replace('.', '_')}", __base__=Options, **fields)
    options.version = version
    return cast("type[Options]", options)


def _described(option: Option, table: Table) -> str:
    kind = f"one of {', '.join(option.choices)}" if option.choices else option.config or option.type
    return f"{kind}; the default of {table.version} is {option.default}; {option.status}."
