"""The command line: its groups, its global options, and how an error looks from the shell."""

import keyword
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from io import StringIO, TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.command_table import COMMANDS, GROUPS, OLD_SPELLINGS, SECTIONS, Entry
from recipes.regular import is_text, shortened

if TYPE_CHECKING:
    from pipeline.cli.app import App
    from pipeline.cli.output import Output

EPILOG = """Exit codes: 0 done, 1 a build failed, 2 recipe or usage, 3 refused by the gate or a policy,
4 this host cannot, 70 a bug, 130 interrupted."""

INTERRUPTED = "interrupted; finished steps are kept, run the same command again to continue"


class LazyGroup(click.Group):
    """Commands that are imported when they are called, so that `--help` imports none of them."""

    def __init__(self, *args: Any, table: Mapping[str, Entry], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is that of a reader's first use."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        if cmd_name not in self.table:
            return None
        module = import_module(f"pipeline.cli.commands.{self.table[cmd_name].module}")
        # `import` is a keyword, so that its function is `import_`
        command: click.Command = getattr(module, f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.line) for name, entry in self.table.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; raises UsageError, with the nearest command, for an unknown word."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            nearest = _nearest(args[0], self.list_commands(ctx), ctx)
            hint = f"; did you mean {nearest!r}?" if nearest else ""
            ctx.fail(f"no such command {args[0]!r}{hint} (have {', '.join(self.list_commands(ctx))})")
        return super().resolve_command(ctx, args)


class FirstScreen(LazyGroup):
    """The whole command line: the commands of most days, the groups, and the spellings of 0.1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands of the first screen, then groups; spellings of 0.1 are hidden."""
        return [*COMMANDS, *GROUPS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A group, a command of the first screen, or the command that 0.1 spelled so."""
        if cmd_name in OLD_SPELLINGS:
            group, name = OLD_SPELLINGS[cmd_name]
            return _group(group).get_command(ctx, name)
        return _group(cmd_name) if cmd_name in GROUPS else super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses arguments that are no text: no registry, JSON document or log could store them."""
        for word in args:
            if not is_text(word):
                ctx.fail(
                    f"{shortened(word)!a} is not UTF-8 text, or contains a NUL; rename the file, or give text"
                )
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the sections of the first screen, then the groups."""
        widest = max(map(len, self.list_commands(ctx)))
        sections = {title: dict(section) for title, section in SECTIONS.items()}
        for title, entries in (sections | {"Groups (enginery GROUP --help)": GROUPS}).items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{widest}}", entry.line) for name, entry in entries.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As of any group; a spelling of 0.1 is answered with a note on stderr."""
        name, command, rest = super().resolve_command(ctx, args)
        # whoever parses the answer, or wants ids only, has no use for the note
        if name in OLD_SPELLINGS and not ctx.params["json_mode"] and not ctx.params["quiet"]:
            click.echo(
                f"note: `enginery {name}` is now `enginery {' '.join(OLD_SPELLINGS[name])}`; "
                "the next release drops the old spelling",
                err=True,
            )
        return name, command, rest


def _group(name: str) -> LazyGroup:
    line, example, table = GROUPS[name]
    return LazyGroup(name, table=table, help=f"{line}\n\nExample: {example}")


def _nearest(word: str, siblings: list[str], ctx: click.Context) -> str | None:
    """The command nearest to a mistyped word, as it is spelled today; a sibling wins over its namesakes."""
    import difflib  # a typo is rare; --help should not pay for it

    spellings = {
        **{old: " ".join(new) for old, new in OLD_SPELLINGS.items()},
        **{name: f"{group} {name}" for group in GROUPS for name in GROUPS[group].commands},
        **{name: name for name in (*COMMANDS, *GROUPS)},
        **{name: name if ctx.parent is None else f"{ctx.info_name} {name}" for name in siblings},
    }
    near = difflib.get_close_matches(word, spellings, n=1)
    if not near:
        return None
    # `store verify` is spelled right, but for the group before it
    return f"enginery {word}" if spellings[near[0]] == word else spellings[near[0]]


@click.group(
    cls=FirstScreen,
    table=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
    ctx.call_on_close(app.warn_of_invalid_rows)


def main() -> None:
    """Runs the command line; every expected error becomes one message and its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal's encoding lacks is spelt out
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _run() -> int:
    apps: list[App] = []
    try:
        return _guarded(apps)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _failed(apps, 130, INTERRUPTED, lambda: click.echo(INTERRUPTED, err=True))
    except click.ClickException as exc:
        from pipeline.cli.boundary import shorten_message  # only after an error

        written = StringIO()
        exc.show(written)
        message, text = shorten_message(exc.format_message()), shorten_message(written.getvalue())
        return _failed(apps, 2, message, lambda: click.echo(text, err=True))
    except BrokenPipeError:  # the reader of our stdout has gone
        # the interpreter flushes stdout at its end, and would fail once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _guarded(apps: "list[App]") -> int:
    """Runs the command; imports the error table only after an exception."""
    try:
        result = enginery(standalone_mode=False, obj=apps)
    except Exception as exc:
        # `_run` prints these
        if isinstance(exc, click.ClickException | click.exceptions.Abort | BrokenPipeError):
            raise
        from pipeline.cli.boundary import report  # rich and pydantic: only after an error

        return report(exc, _output(apps))
    # only after success: a failed run prints one document, with the error in it
    for app in apps:
        app.out.flush()
    return result if isinstance(result, int) else 0


def _failed(apps: "list[App]", code: int, message: str, show: Callable[[], None]) -> int:
    """Prints a failure that is no exception of ours; with --json as a document too."""
    show()
    if _asked_for_json():
        from pipeline.cli.boundary import failure  # as above

        _output(apps).failed(failure(code, message))
    return code


def _output(apps: "list[App]") -> "Output":
    """The output of the call; for one that failed before its options were parsed, as argv asks for it."""
    from pipeline.cli.output import Output

    if apps:
        return apps[0].out
    return Output(
        json_mode=_asked_for_json(), color="--no-color" not in sys.argv and not os.environ.get("NO_COLOR")
    )


def _asked_for_json() -> bool:
    words = sys.argv[1:]
    # what is after `--` are arguments, even where they look like an option
    return "--json" in words[: words.index("--") if "--" in words else None]


def _terminate(signum: int, frame: FrameType | None) -> None:
    """Turns SIGTERM into an exception, so that drafts are removed and children are killed."""
    raise KeyboardInterrupt
