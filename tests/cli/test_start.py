"""How the command line starts, fails and stops. How each command works is told beside its module."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest

from anarch_core import cli
from anarch_core.errors import PluginError, RunError
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.version import __version__

HEAVY = ("torch", "torchvision", "numpy", "matplotlib")


def anarch(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line."""
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["plugins", "list"],
        ["plugins", "list", "--json"],
        ["plugins", "doctor"],
        *([name, "--help"] for name in cli.COMMANDS),
        ["run", "--relax", "efcn,tiled", "--probe", "hessian", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_before_it_is_needed(args: list[str]) -> None:
    script = f"""
        import sys
        from anarch_core.cli import main
        try:
            main({args!r})
        finally:
            print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == "[]", ran.stderr
    assert ran.returncode == 0, ran.stdout


def test_help_of_run_shows_the_options_of_the_chosen_relaxation(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = anarch(capsys, "run", "--relax", "tiled", "--help")
    assert code == 0
    assert "Options of relaxation tiled" in out
    assert "--tiled-period" in out


def test_every_row_of_the_table_is_a_command() -> None:
    context = click.Context(cli.group)
    for name in cli.COMMANDS:
        command = cli.group.get_command(context, name)
        assert isinstance(command, click.Command)
        assert command.name == name


def test_no_installed_plugin_uses_the_name_of_an_own_command() -> None:
    assert not set(Registry.load().names("command")) & set(cli.COMMANDS)


def test_module_and_script_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    ran = subprocess.run([sys.executable, "-m", "anarch_core", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == anarch(capsys, "--version")[1] == anarch(capsys, "-V")[1] == f"anarch, version {__version__}\n"


@pytest.mark.parametrize("args", [["rum"], ["--nonsense"], ["plugins", "nonsense"]], ids=" ".join)
def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    code, out, err = anarch(capsys, *args)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_an_unknown_command_gets_close_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Error: no command 'rum'; did you mean 'run'" in anarch(capsys, "rum")[2]


@pytest.mark.parametrize(
    "args", [["x" * 100_000], ["--" + "x" * 100_000], ["inspect", "x" * 100_000], ["relax", "x", "--to", "x" * 100_000]]
)
def test_a_message_is_short_whatever_was_given(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    code, _, err = anarch(capsys, *args)
    assert code in (1, 2)
    assert len(err) < 2000


def test_a_name_that_the_terminal_cannot_show_is_told_with_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", errors)
    with pytest.raises(SystemExit):
        cli.main(["inspect", "x\udcff"])
    errors.flush()
    assert errors.buffer.getvalue().startswith(b"Error: cannot read x\\udcff: ")  # type: ignore[attr-defined]


class TestFailing:
    """A command that a plugin brings, so that it can fail as it likes."""

    @pytest.fixture(autouse=True)
    def failing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = """
            import warnings
            import click
            from anarch_core import hookimpl
            from anarch_core.plugin.records import CommandInfo
            from anarch_core.errors import RunError

            @hookimpl
            def anarch_commands():
                return [
                    CommandInfo(name="fail", summary="Fails as it is told.", target="failing:command"),
                    CommandInfo(name="no-command", summary="Is none.", target="failing:hookimpl"),
                ]

            class Stopped(RunError):
                exit_code = 130

            @click.command()
            @click.argument("how")
            @click.pass_context
            def command(ctx, how):
                if how == "error":
                    raise RunError("the folder 'x' holds another run")
                if how == "stopped":
                    raise Stopped("nothing is lost")
                if how == "disk":
                    raise OSError(28, "No space left on device", "out/x")
                if how == "interrupt":
                    raise KeyboardInterrupt
                if how == "bug":
                    raise ZeroDivisionError
                if how == "exit":
                    ctx.exit(7)
                warnings.warn("this is deprecated", FutureWarning)
                click.echo("done")
        """
        info = tmp_path / "failing-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[anarch.plugins]\nfailing = failing\n")
        (tmp_path / "failing.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "failing", raising=False)
        get_registry.cache_clear()
        yield
        get_registry.cache_clear()

    def test_it_is_listed_with_its_summary(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = anarch(capsys, "--help")
        assert "Commands of plugins:" in out
        assert "Fails as it is told." in out

    @pytest.mark.filterwarnings("default")
    @pytest.mark.parametrize(
        ("how", "code", "message"),
        [
            ("error", 1, "Error: the folder 'x' holds another run\n"),
            ("disk", 1, "Error: command 'fail' of plugin 'failing' (failing 1.0): OSError: [Errno 28] No space left on device: 'out/x'\n"),
            ("stopped", 130, "Interrupted: nothing is lost\n"),
            ("exit", 7, ""),
            ("warn", 0, "Warning: this is deprecated\n"),
        ],
    )
    def test_errors_are_one_line(self, capsys: pytest.CaptureFixture[str], how: str, code: int, message: str) -> None:
        assert anarch(capsys, "fail", how)[::2] == (code, message)

    def test_an_interrupt_is_no_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = anarch(capsys, "fail", "interrupt")
        assert code == 128 + signal.SIGINT
        assert err.strip() == "Interrupted."

    def test_debug_raises_what_was_told_in_one_line(self) -> None:
        with pytest.raises(RunError):
            cli.main(["--debug", "fail", "error"])

    def test_what_it_raises_is_told_with_its_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = anarch(capsys, "fail", "bug")
        assert (code, err) == (1, "Error: command 'fail' of plugin 'failing' (failing 1.0): ZeroDivisionError\n")

    def test_debug_shows_where_it_was_raised(self) -> None:
        with pytest.raises(PluginError) as raised:
            cli.main(["--debug", "fail", "bug"])
        assert isinstance(raised.value.__cause__, ZeroDivisionError)

    def test_what_is_no_click_command_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = anarch(capsys, "no-command")
        assert code == 1
        assert err.startswith("Error: command 'no-command' of plugin 'failing' (failing 1.0): ")

    def test_without_plugins_it_is_gone(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANARCH_NO_PLUGINS", "")
        code, _, err = anarch(capsys, "--no-plugins", "fail", "warn")
        assert code == 2
        assert "no command 'fail'" in err

    def test_doctor_finds_it_broken(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = anarch(capsys, "plugins", "doctor", "failing")
        assert code == 1
        assert "command fail: Fails as it is told." in out
        assert "'failing:hookimpl' must be a click.Command" in out


class TestPluginsCommand:
    def test_list_shows_every_component_with_its_owner(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = anarch(capsys, "plugins", "list")
        assert code == 0
        for info in get_registry().infos("relaxation"):
            assert info.summary in out

    def test_json_has_what_a_program_needs(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = anarch(capsys, "plugins", "list", "--json")
        plugins = {plugin["name"]: plugin for plugin in json.loads(out)}
        assert plugins["log"]["status"] == "loaded"
        (schedule,) = plugins["log"]["components"]
        assert (schedule["kind"], schedule["name"]) == ("schedule", "log")
        assert {option["name"] for option in schedule["options"]}

    def test_doctor_finds_nothing_wrong_with_the_built_ins(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ANARCH_NO_PLUGINS", "1")
        get_registry.cache_clear()
        code, out, _ = anarch(capsys, "plugins", "doctor")
        get_registry.cache_clear()
        assert out.rstrip().endswith("no problems")
        assert code == 0

    def test_doctor_imports_what_a_plugin_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = anarch(capsys, "plugins", "doctor", "log")
        assert (code, out.splitlines()[0].split(" in ")[0]) == (0, f"log (anarch_plugins.schedules.log, anarch {__version__}): loaded")

    def test_doctor_of_an_unknown_plugin(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = anarch(capsys, "plugins", "doctor", "plateauu")
        assert (code, err) == (1, "Error: no plugin 'plateauu'; did you mean 'plateau' or 'plane'?\n")
