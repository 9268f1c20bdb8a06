"""tools reshard: a quantized checkpoint for another number of ranks."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import COUNT, PATH

if TYPE_CHECKING:
    from pipeline.process.process import Usage
    from pipeline.run.resharding import Order


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT|KEY|NAME[@ALIAS|:VERSION]")
@click.argument("out", type=PATH)
@click.option("--tp", type=COUNT, default=1, show_default=True, help="Tensor-parallel degree.")
@click.option("--pp", type=COUNT, default=1, show_default=True, help="Pipeline-parallel degree.")
@click.option("--ep", type=COUNT, default=1, show_default=True, help="Expert-parallel degree within tp.")
@click.option(
    "--release", default="", help="TensorRT-LLM release that will read it, e.g. 0.15; default: newest."
)
@click.pass_obj
def reshard(  # noqa: PLR0913, PLR0917 what click hands over
    app: App, /, checkpoint: str, out: Path, tp: int, pp: int, ep: int, release: str
) -> None:
    """Write a quantized checkpoint for other ranks to the new directory OUT, without quantizing again.

    CHECKPOINT is a directory in Hugging Face layout, a key of the store, or a published version.

    Example: enginery tools reshard demo/int4_awq_tp2@candidate ./tp4 --tp 4
    """
    from artifacts.store.disk import refuse_taken
    from pipeline.run.resharding import Layout, find, held, order
    from pipeline.units import size

    refuse_taken(out.absolute())
    # the registry as a function: a directory or a key needs none
    source = find(checkpoint, app.site.store, lambda: app.registry)
    with held(source, app.site.store):
        job = order(source, Layout(tp=tp, pp=pp, ep=ep), release)
        app.out.say(
            f"{source.path}: {job.precision}, KV cache {job.kv_cache}; "
            f"{size(sum(job.rank_bytes))} for {tp * pp} rank(s)"
        )
        usage = _write(app, job, out)
    for reason in job.unloadable:
        app.out.warn(f"TensorRT-LLM does not load this: {reason}")
    following = "" if job.unloadable else f"; next: {next_command(out)}"
    app.out.value(
        {
            "directory": str(out.absolute()),
            "format": job.precision.as_param(),
            "kv_cache": job.kv_cache,
            "tp": tp,
            "pp": pp,
            "ep": ep,
            "rank_bytes": job.rank_bytes,
            "seconds": round(usage.seconds, 3),
            "peak_memory_bytes": usage.peak_memory_bytes,
            "unloadable": job.unloadable,
        },
        text=f"wrote {tp * pp} rank(s) to {out} in {usage.seconds:.1f} s, "
        f"peak memory {size(usage.peak_memory_bytes)}{following}",
        short=str(out),
    )


def _write(app: App, job: "Order", out: Path) -> "Usage":
    from pipeline.cli.progress import Display  # rich and numpy: not for --help
    from pipeline.run.resharding import write

    with Display(app.out) as display:
        display.started(job.step)
        return write(job, out, lambda *event: display.progressed(job.step, *event))


def next_command(out: Path) -> str:
    """What builds engines of it with TensorRT-LLM; `enginery run` does that, and more, from a recipe."""
    return (
        f"trtllm-build --checkpoint_dir {shlex.quote(str(out))} --output_dir {shlex.quote(f'{out}-engine')}"
    )
