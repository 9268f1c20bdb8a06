"""Options that a call gives and would not use: refused, because whoever gives one relies on it."""

import click
from click.core import ParameterSource


def refuse_unused(why: str, *names: str) -> None:
    """Raises click's UsageError if the command that runs was given one of these parameters.

    `names` are parameters as the command's function has them; `why` follows "has no effect".
    """
    ctx = click.get_current_context()
    given = [
        one.opts[-1] if isinstance(one, click.Option) else one.human_readable_name
        for one in ctx.command.params
        if one.name in names and ctx.get_parameter_source(one.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        have = "has" if len(given) == 1 else "have"
        raise click.UsageError(f"{' and '.join(given)} {have} no effect {why}")
