"""The command `stic-eval`: parses, delegates, and turns every error into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong input, 3 done but rows are unscored or files were skipped,
130 interrupted. Nothing here, or imported here, imports torch.
"""

from __future__ import annotations

import errno
import gc
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Annotated, Any

import typer

from stic_eval.cli import (
    ablate,
    board,
    cache,
    compare,
    cp,
    data,
    diff,
    doctor,
    export,
    export_run,
    import_,
    judge,
    ls,
    neighbours,
    new,
    plot,
    report,
    rm,
    run,
    score,
    show,
    table,
    train,
    usage_errors,
)
from stic_eval.cli import eval as evaluate
from stic_eval.cli import options as o
from stic_eval.cli.help_types import Command, Group
from stic_eval.errors import RunError, UserError, headline, shorten, storage_failure
from stic_eval.hub_access import restore_afterwards
from stic_eval.library_messages import hub_requests_in_log
from stic_eval.printable import printable
from stic_eval.waiting_threads import sleep_while_waiting

# Of names that somebody gives, which Python says when it looks whether there is such a file.
_NAMES = (errno.ENAMETOOLONG, errno.EACCES)
_LONGEST = 4_000  # characters of a line about an error

app = typer.Typer(
    name="stic-eval",
    cls=Group,
    help="Evaluate vision-language models, self-train them (STIC), and compare both side by side.",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": neighbours.spelling},
)
_COMMANDS: dict[str, Callable[..., Any]] = {
    "run": run.run, "train": train.train, "eval": evaluate.eval_, "ablate": ablate.ablate,
    "score": score.score, "ls": ls.ls, "show": show.show, "table": table.table, "compare": compare.compare,
    "plot": plot.plot, "report": report.report, "board": board.board, "diff": diff.diff, "rm": rm.rm,
    "new": new.new, "cp": cp.cp, "doctor": doctor.doctor,
}  # fmt: skip
# What reads much, and takes no model.
_READING = {"score", "ls", "table", "compare", "plot", "report", "board"}
_NEW_OBJECTS = 50_000  # of containers, between two looks for garbage; Python's own number is 700
_RUNNING = (["run"], ["train"], ["eval"], ["ablate"])  # what takes a model
for _name, _function in _COMMANDS.items():
    app.command(_name, cls=Command)(o.command(_function))
for _name, _group in (
    ("judge", judge),
    ("data", data),
    ("export", export),
    ("import", import_),
    ("cache", cache),
):
    app.add_typer(_group.app, name=_name)
export.app.command("run", cls=Command)(o.command(export_run.export_run))


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"stic-eval {version('stic-eval')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def fail(message: str) -> None:
    """Prints one line on stderr, whatever the message holds."""
    # A name, an address or a value may be of any length; what is to be done stands behind it.
    words = (shorten(word) for word in str(message).split())
    print("stic-eval: " + shorten(printable(" ".join(words)), _LONGEST), file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    """Runs the command and exits; what a cluster's scheduler sends ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(invoke(sys.argv[1:] if argv is None else argv))


@contextmanager
def _collect_seldom() -> Iterator[None]:
    """Has Python look for garbage after many more new objects: of rows and records, none ever becomes any."""
    before = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def invoke(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    plugins = sys.modules.get("stic_eval.plugins")
    if plugins is not None:  # of an earlier command of this process
        plugins.forget()
    try:
        memory = _collect_seldom() if _READING & set(argv[:1]) else nullcontext()
        with restore_afterwards(), hub_requests_in_log(), sleep_while_waiting(), memory:
            result = app(argv or ["--help"], prog_name="stic-eval", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except UserError as error:
        fail(str(error))
        return 2
    except RunError as error:
        fail(str(error))
        return 1
    except typer.TyperException as error:
        if not error.format_message():  # a group without a command, whose help has been printed
            return error.exit_code
        advice = neighbours.advice(getattr(error, "option_name", ""), argv) if argv[:1] in _RUNNING else None
        fail(advice or usage_errors.explain(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as error:
        # How rich leaves when the reader of its output went away; anything else is somebody's own exit.
        return 0 if isinstance(error.__context__, BrokenPipeError) else _unexpected(error, argv)
    except BrokenPipeError:
        # The reader of the table went away (`| head`): not an error, and nothing more can be written.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return 0
    except OSError as error:
        if error.errno not in _NAMES or error.filename is None:
            return _unexpected(error, argv)
        fail(f"{error.filename}: {error.strerror}")
        return 2
    except BaseException as error:  # a plug-in may raise what is no Exception
        return _unexpected(error, argv)


def _unexpected(error: BaseException, argv: list[str]) -> int:
    """Ends after a mistake in this program, or in a plug-in: still one line, and the rest on request."""
    verbose = {"-v", "--verbose"} & set(argv)
    if verbose:
        with suppress(Exception):  # the error may be of a class whose text fails
            traceback.print_exception(error)
    from stic_eval import registry

    if full := storage_failure(error):
        fail(full)
        return 1
    hint = "" if verbose or argv[:1] not in _RUNNING else " (-v shows where)"
    explained = registry.explain(error)
    # What a plug-in raises is its own mistake, and its file is named.
    theirs = explained != headline(error)
    fail(f"{explained}{hint}" if theirs else f"failed unexpectedly: {explained}{hint}")
    return 1


if __name__ == "__main__":
    main()
