"""Toolchains that a person declares: environments and images, in a small YAML file.

version: 1
toolchains:
  trtllm-0.16: {environment: /opt/trtllm-0.16}
  trtllm-1.0: {image: nvidia/tensorrt-llm:1.0.0, runtime: docker}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from recipes.errors import RecipeError
from recipes.frozen import Frozen, Version1
from recipes.located import compose, construct, validate
from recipes.regular import user_path

VARIABLE = "ENGINERY_TOOLCHAINS"
"""Environment variable that names the file."""

ON_PATH = "path"
"""Name of the toolchain found on PATH; none can be declared under it."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Declared(Frozen):
    """One toolchain: an environment, or an image and what runs it."""

    environment: str | None = None
    """Root of a virtual environment; relative paths start at the file's directory."""
    image: str | None = None
    """Reference of an image; of apptainer a `.sif` file, of enroot a `.sqsh` file or a container's name."""
    runtime: Literal["docker", "podman", "apptainer", "enroot"] | None = None
    """Program that runs the image."""
    launcher: Literal["trtllm-build", "mpirun"] = "trtllm-build"
    """What starts the ranks of a build; `mpirun` where the builder's own worker processes do not work."""

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.environment is None) == (self.image is None):
            raise ValueError("is an environment or an image; give one of the two keys")
        if (self.image is None) != (self.runtime is None):
            raise ValueError(
                "image and runtime belong together; runtime is docker, podman, apptainer or enroot"
            )
        return self


class File(Frozen):
    """The file."""

    version: Version1
    toolchains: dict[Name, Declared] = Field(min_length=1)


def place(env: Mapping[str, str]) -> Path:
    """Where the file is looked for: `$ENGINERY_TOOLCHAINS`, else below the user's configuration."""
    if env.get(VARIABLE):
        return user_path(env[VARIABLE])
    home = env.get("XDG_CONFIG_HOME") or str(user_path(env.get("HOME") or "~") / ".config")
    return Path(home) / "enginery" / "toolchains.yaml"


def read(env: Mapping[str, str]) -> tuple[Path, Mapping[str, Declared]]:
    """The file and what it declares, nothing where there is none; RecipeError with every mistake in it.

    A file that the variable names has to be there.
    """
    file = place(env)
    if not file.is_file() and not env.get(VARIABLE):
        return file, {}
    root = compose(file, "a list of toolchains", f"correct {VARIABLE}, or write the file")
    declared = validate(File, file, root, construct(file, root)).toolchains
    if ON_PATH in declared:
        raise RecipeError(
            file, [f"toolchains.{ON_PATH}: is the name of what is found on PATH; choose another"]
        )
    return file, declared
