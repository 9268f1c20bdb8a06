"""The command line: which commands there are, and what an error looks like from the shell."""

import keyword
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from io import StringIO, TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING

import click

from recipes.regular import is_text, shortened

if TYPE_CHECKING:
    from pipeline.cli.app import App
    from pipeline.cli.output import Output

SECTIONS = {
    "Build": {
        "init": ("check", "Write a first recipe."),
        "check": ("check", "Check recipes without planning them."),
        "plan": ("run", "Show the steps of a recipe, what is cached, what would run."),
        "lint": ("lint", "Say what of a recipe is worth changing, and why."),
        "sensitivity": ("sensitivity", "Say what quantization costs, linear by linear."),
        "run": ("run", "Build, gate and publish what a recipe describes."),
        "demo": ("run", "Run the demo recipe and let the published engine talk."),
        "up": ("submit", "Start a Prefect server, a work pool and a worker."),
        "submit": ("submit", "Send a recipe to the running server."),
        "reshard": ("reshard", "Write a quantized checkpoint for another number of ranks."),
    },
    "Find and use": {
        "ls": ("show", "List published names and versions."),
        "show": ("show", "Show one version, or one artifact by its key."),
        "find": ("find", "Find versions that load, and say why others do not."),
        "diff": ("show", "Say in words what differs between two versions."),
        "card": ("card", "Say everything about a version on one page."),
        "pull": ("pull", "Copy a version to a directory, verified; follow an alias."),
        "generate": ("generate", "Let a published engine continue a prompt."),
        "export": ("export", "Write what Triton, trtllm-serve, vLLM or k8s needs."),
        "serve-registry": ("card", "Show the registry in a browser and as a JSON API."),
    },
    "Release": {
        "promote": ("promote", "Point an alias at a version, if its policy allows."),
        "rollback": ("promote", "Point an alias back at the version before."),
        "aliases": ("promote", "List aliases, who moved them, and whether they may stay."),
        "policy": ("policy", "Show or set what an alias asks of versions."),
        "waive": ("policy", "Let a version break a rule for a time, and say why."),
        "log": ("promote", "Say what happened to a name, and who did it."),
        "subscribe": ("notify", "Tell somebody of events by signed webhook or command."),
        "notify": ("notify", "Tell subscribers what they are to be told."),
        "stale": ("stale", "Show engines that no longer match, and what a rebuild costs."),
        "reproduce": ("reproduce", "Build a version again and compare it file by file."),
    },
    "Trust": {
        "keygen": ("sign", "Make a key to sign versions with."),
        "sign": ("sign", "Sign the files of a version, or list who did."),
        "attest": ("sign", "Sign how a version came to be, as in-toto provenance."),
    },
    "Exchange": {
        "push": ("push", "Hand a version to a Hugging Face repository, OCI or MLflow."),
        "import": ("push", "Register what was built elsewhere, as unverified."),
    },
    "Store and host": {
        "verify": ("verify", "Hash a version, a pulled directory or the whole store again."),
        "repair": ("verify", "Replace damaged files by right bytes from another copy."),
        "gc": ("gc", "Remove artifacts that no version, lease or policy keeps."),
        "store": ("verify", "Say what the store holds and shares."),
        "registry": ("registry", "Make, upgrade or show the registry's database."),
        "toolchains": ("doctor", "List the TensorRT-LLM installations of this host."),
        "doctor": ("doctor", "Say what this host has, what is missing and what to do."),
    },
}
"""Section of `--help` -> command -> module in `pipeline.cli.commands`, and its line."""

COMMANDS = {name: said for section in SECTIONS.values() for name, said in section.items()}

EPILOG = """Exit codes: 0 done, 1 a build failed, 2 recipe or usage, 3 the gate said no,
4 this host cannot, 70 a bug, 130 interrupted."""

INTERRUPTED = "interrupted; finished steps are kept, run the same command again to continue"


class Lazy(click.Group):
    """A group whose commands are imported when they are called, so that `--help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pipeline.cli.commands.{COMMANDS[cmd_name][0]}")
        attribute = cmd_name.replace("-", "_") + ("_" if keyword.iskeyword(cmd_name) else "")
        command: click.Command = getattr(module, attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses words that are no text: no registry, JSON document or log could hold them."""
        for word in args:
            if not is_text(word):
                ctx.fail(
                    f"{shortened(word)!a} is not UTF-8 text, or holds a NUL; rename the file, or give text"
                )
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands from the table, importing none."""
        widest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{widest}}", line) for name, (_, line) in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest command for a typo."""
        import difflib  # a typo is rare; --help should not pay for it

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no such command {args[0]!r}{hint} (have {', '.join(COMMANDS)})")
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="enginery")
@click.option(
    "--store",
    "store_url",
    envvar="ENGINERY_STORE",
    default="~/.enginery",
    show_default=True,
    help="Directory, or s3://BUCKET, gs://, az://.",
)
@click.option(
    "--registry",
    "registry_url",
    envvar="ENGINERY_REGISTRY",
    help="Database URL; by default registry.db in the store.",
)
@click.option("--json", "json_mode", is_flag=True, help="Print one JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-color", is_flag=True, envvar="NO_COLOR", help="Print without colour.")
@click.pass_context
def enginery(
    ctx: click.Context, store_url: str, registry_url: str | None, json_mode: bool, quiet: bool, no_color: bool
) -> None:
    """Turns a recipe into a quantized, sharded, accuracy-gated LLM engine, registered under a version."""
    from pipeline.cli.app import App  # rich and pydantic: not for --help

    app = App(store_url, registry_url, json_mode=json_mode, quiet=quiet, color=not no_color)
    if isinstance(ctx.obj, list):  # `main` looks there, and prints the answer once it knows of no error
        ctx.obj.append(app)
    else:
        ctx.call_on_close(app.out.flush)
    ctx.obj = app
    ctx.call_on_close(app.tell_odd)


def main() -> None:
    """Runs the command line; every expected error becomes one message and its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal's encoding lacks is spelt out
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _run() -> int:
    made: list[App] = []
    try:
        return _guarded(made)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _failed(made, 130, INTERRUPTED, lambda: click.echo(INTERRUPTED, err=True))
    except click.ClickException as exc:
        from pipeline.cli.brief import brief  # only after an error

        written = StringIO()
        exc.show(written)
        message, shown = brief(exc.format_message()), brief(written.getvalue())
        return _failed(made, 2, message, lambda: click.echo(shown, err=True))
    except BrokenPipeError:  # the reader of our stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _guarded(made: "list[App]") -> int:
    """Runs the command; imports the error table only once something was raised."""
    try:
        result = enginery(standalone_mode=False, obj=made)
    except Exception as exc:
        if isinstance(exc, click.ClickException | click.exceptions.Abort | BrokenPipeError):
            raise
        from pipeline.cli.boundary import report  # rich and pydantic: only after an error

        return report(exc, _output(made))
    for app in made:
        app.out.flush()
    return result if isinstance(result, int) else 0


def _failed(made: "list[App]", code: int, message: str, show: Callable[[], None]) -> int:
    """Tells of a failure that is no exception of ours, as a document too where one was asked for."""
    show()
    if _asked_for_json():
        from pipeline.cli.boundary import failure  # as above

        _output(made).failed(failure(code, message))
    return code


def _output(made: "list[App]") -> "Output":
    """Where the call prints; a call that failed before it had options is read as far as that needs."""
    from pipeline.cli.output import Output

    if made:
        return made[0].out
    return Output(
        json_mode=_asked_for_json(), color="--no-color" not in sys.argv and not os.environ.get("NO_COLOR")
    )


def _asked_for_json() -> bool:
    words = sys.argv[1:]
    return "--json" in words[: words.index("--") if "--" in words else None]


def _terminate(signum: int, frame: FrameType | None) -> None:
    """Turns SIGTERM into an exception, so that drafts are removed and children are killed."""
    raise KeyboardInterrupt
