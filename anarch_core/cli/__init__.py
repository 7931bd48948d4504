"""The command line: a table of subcommands that are imported only when they are called.

A module of this package defines ``command``, a click command, and has one row in :data:`COMMANDS`. Commands return nothing and leave
early with ``ctx.exit(code)``; errors that the user can mend are raised as :class:`~anarch_core.errors.AnarchError`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import attrs
import click

import anarch_core
from anarch_core.cli.completion import completing
from anarch_core.errors import AnarchError, close_matches, did_you_mean, legible, one_line, plain

# Short help stands here, so that `anarch --help` imports none of them.
COMMANDS = {
    "run": "Train, relax at the switch times, train on, probe, and compare.",
    "resume": "Finish a run that was interrupted.",
    "runs": "List the runs in a folder: what, how far, how good, how large.",
    "plan": "Show what a run would do: layers, parameters, memory, time.",
    "plugins": "List the installed plugins, find out what is wrong with one, or start your own.",
    "inspect": "Show what a checkpoint holds, without loading its tensors.",
    "relax": "Relax the network of a checkpoint.",
    "project": "Project the relaxed network of a checkpoint back onto its constraints.",
    "probe": "Measure the network of a checkpoint.",
    "align": "Permute the channels of a checkpoint's network to match another one's.",
    "interpolate": "Measure the loss on the way from one checkpoint to another.",
    "report": "Write figures and one page about finished runs.",
}

INTERRUPTED = 130

LONGEST = 1500
"""Characters of an error or a warning that are told."""


@attrs.define
class Session:
    """What the options before the subcommand say.

    Attributes:
        debug: show tracebacks of errors that are otherwise told in one line.
    """

    debug: bool = False


class LazyGroup(click.Group):
    """Subcommands from :data:`COMMANDS`, then those of plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, own ones in the order of the table."""
        return [*COMMANDS, *self._plugin_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None when there is none of the name."""
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
            return command
        if cmd_name.partition("@")[0] not in self._plugin_commands():
            return None
        from anarch_core.plugin.registry import get_registry

        registry = get_registry()
        contributed: click.Command = registry.target(registry.find("command", cmd_name))
        return contributed

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; a name that is none is a usage error with close matches."""
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS and self.get_command(ctx, name) is None:
            ctx.fail(f"no command {name!r}{did_you_mean(close_matches(name, self.list_commands(ctx)))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; what goes wrong in one of a plugin is told with the plugin's name."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError, SystemExit):
            raise
        except BaseException as error:
            name = ctx.invoked_subcommand
            if name is None or name in COMMANDS:
                raise
            from anarch_core.plugin.blame import fault
            from anarch_core.plugin.registry import get_registry

            registry = get_registry()
            raised = fault(registry.origin(registry.find("command", name)), error)
            if raised is error:
                raise
            raise raised from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' short help without importing them."""
        for title, rows in (("Commands", COMMANDS), ("Commands of plugins", self._plugin_commands())):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(list(rows.items()))

    def _plugin_commands(self) -> dict[str, str]:
        from anarch_core.plugin.registry import get_registry

        return {info.name: plain(info.summary) for info in get_registry().infos("command") if info.name not in COMMANDS}


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).debug = True


def _set_no_plugins(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        # The environment, so that the processes a run starts see the same components.
        os.environ["ANARCH_NO_PLUGINS"] = "1"
        from anarch_core.plugin.registry import get_registry

        get_registry.cache_clear()


@click.group(cls=LazyGroup, name="anarch", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--debug", is_flag=True, is_eager=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error.")
@click.option(
    "--no-plugins",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_no_plugins,
    help="Load none but the built-in plugins.",
)
@click.version_option(anarch_core.__version__, "-V", "--version", prog_name="anarch")
def group() -> None:
    """Architectural relaxation: train a network, embed it exactly into a larger family, go on training, and probe what happens."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 an error, 2 wrong usage, 130 interrupted.

    Args:
        args: the arguments; None for those of the process.
    """
    session = Session()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that is no text, or a sign that the terminal does not have, is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        if completing():
            warnings.simplefilter("ignore")
        sys.exit(_run(args, session))


def _run(args: Sequence[str] | None, session: Session) -> int:
    try:
        # Where a command leaves with `ctx.exit(code)`, click returns the code here.
        code = group.main(args=None if args is None else list(args), prog_name="anarch", standalone_mode=False, obj=session)
    except click.ClickException as error:
        usage = io.StringIO()
        error.show(usage)
        click.echo(legible(usage.getvalue().rstrip(), LONGEST), err=True)
        _document_failure(args, error.exit_code, legible(error.format_message(), LONGEST))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # click turns an interrupt into Abort.
        said = plain(error if isinstance(error, KeyboardInterrupt) else error.__cause__ or "")
        click.echo(f"Interrupted{f' {said}' if said else ''}.", err=True)
        _document_failure(args, INTERRUPTED, f"interrupted {said}".rstrip())
        return INTERRUPTED
    except (AnarchError, OSError) as error:
        code = error.exit_code if isinstance(error, AnarchError) else 1
        _document_failure(args, code, _told(error))
        if session.debug:
            raise
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            click.echo(f"{'Interrupted' if code == INTERRUPTED else 'Error'}: {_told(error)}", err=True)
        return code
    except Exception as error:
        _document_failure(args, 1, legible(one_line(error), LONGEST))
        raise
    return code if isinstance(code, int) else 0


def _document_failure(args: Sequence[str] | None, code: int, text: str) -> None:
    """Where the command line asks for a document, the failure is one."""
    from anarch_core.cli.saying import failure, wants_document

    if wants_document(args):
        failure(code, text)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return plain(error.strerror + (f": {error.filename}" if error.filename else ""))
    return legible(error, LONGEST)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {legible(message, LONGEST)}", err=True)
