"""init, check: writing recipes."""

from pathlib import Path

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PATH

FIRST = """\
# yaml-language-server: $schema={schema}
version: 1
name: {name}
model:
  path: {model}
format: fp8   # or {{default: fp8, except: {{"model.layers.0.*": none}}}}; see `enginery tools sensitivity`
calibration:
  data:
    - {{path: calibration.jsonl}}   # rows {{"text": ...}} or {{"messages": [...]}}: your own traffic
  seq_len: 512
engine:
  tp: 1
  max_batch_size: 8
  max_seq_len: 512
gate:
  data: {{path: heldout.jsonl}}     # rows the calibration never sees
  limits: {{kl: 0.05, top1_agreement: 0.95, perplexity_ratio: 1.02}}
publish: {{alias: candidate}}
"""


@click.command()
@click.argument("file", type=PATH, default=Path("recipe.yaml"))
@click.option("--name", default="my-model/fp8", show_default=True, help="Name to publish under.")
@click.option("--model", default="./checkpoint", show_default=True, help="Local checkpoint directory.")
@click.pass_obj
def init(app: App, file: Path, name: str, model: str) -> None:
    """Write a first recipe to FILE; an existing file is never overwritten.

    Example: enginery init recipe.yaml --model ./Llama-3.1-8B
    """
    from recipes.json_schema import FILE  # pydantic: not for --help

    try:
        with file.open("x") as out:
            out.write(FIRST.format(schema=FILE.as_uri(), name=name, model=model))
    except FileExistsError:
        raise click.UsageError(f"{file} exists; give another name or remove it first") from None
    except OSError as exc:
        raise click.UsageError(f"{file} cannot be written: {exc.strerror}") from None
    app.out.value({"file": str(file)}, text=f"wrote {file}; next: enginery plan {file}", short=str(file))


@click.command()
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.pass_obj
def check(app: App, files: tuple[Path, ...]) -> None:
    """Validate recipes without reading models or data.

    Example: enginery check recipes/demo/*.yaml
    """
    from recipes.load import load  # pydantic: not for --help

    rows = [
        {"name": loaded.recipe.name, "format": str(loaded.recipe.precision), "tp": loaded.recipe.engine.tp,
         "pp": loaded.recipe.engine.pp, "backend": loaded.recipe.engine.backend, "file": str(file)}
        for file in files
        for loaded in load(file)
    ]  # fmt: skip
    app.out.rows(rows, id_column="name")
