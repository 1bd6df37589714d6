"""How the command line ends: what went wrong as one line, and an exit status."""

import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from stackcls.errors import ConfigError, StackclsError
from stackcls.printable import printable

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
REPEAT = 0.5  # seconds


class Terminated(BaseException):
    """The system, or another program, asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def run(command: click.Command, arguments: list[str]) -> int:
    """Run one command and return the exit status: 0 done, 1 not possible, 2 wrong usage, 130 or more interrupted."""
    # Pillow remarks on odd metadata of single files; what matters to the user is whether the pixels could be read.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that the terminal's encoding cannot write must not end a run; in JSON, \udcff stays valid.
            stream.reconfigure(errors="backslashreplace")
    with _ending_in_order():
        return _run(command, [item for item in arguments if item != "--debug"], "--debug" in arguments)


def _run(command: click.Command, arguments: list[str], debug: bool) -> int:
    try:
        status = command.main(arguments, "stackcls", standalone_mode=False)
        return status if isinstance(status, int) else DONE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        # click has put its own exception around the one that says what is kept.
        click.echo("; ".join(["interrupted", *_notes(error.__cause__ or error)]), err=True)
        return INTERRUPTED
    except Terminated as error:
        click.echo("; ".join(["terminated", *_notes(error)]), err=True)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (StackclsError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        # Complaints about settings come one to a line; elsewhere a line's end can only be part of a name.
        lines = str(error).split("\n") if isinstance(error, ConfigError) else [str(error)]
        message = "\n".join(map(printable, lines)) or type(error).__name__
        click.echo("; ".join([f"error: {message}", *_notes(error)]), err=True)
        return WRONG_USAGE if isinstance(error, ConfigError) else FAILED


def _notes(error: BaseException) -> list[str]:
    return [printable(note) for note in getattr(error, "__notes__", [])]


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let the signals by which systems end processes unwind this one, as Ctrl-C does, and not stop that.

    What a signal raises is lost where Python runs for others, as in a finaliser; so it is repeated until it is heard.
    """
    done, deciding = threading.Event(), threading.Lock()

    def end(number: int, _: object) -> None:
        if done.is_set() or _is_ending(sys.exception()):
            return
        if os.name == "posix":
            threading.Thread(target=_repeat, args=(number, done, deciding), daemon=True).start()
        raise Terminated(number)

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What is ignored, as under nohup, stays so.
    before = {number: signal.getsignal(number) for number in known if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        done.set()
        with deciding:  # a signal that is being repeated finds its handler still there
            pass
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_ending(error: BaseException | None) -> bool:
    """Whether what is being cleaned up after is the end of the process."""
    while error is not None and not isinstance(error, Terminated):
        error = error.__context__
    return error is not None


def _repeat(number: int, done: threading.Event, deciding: threading.Lock) -> None:
    done.wait(REPEAT)
    with deciding:
        if not done.is_set():
            os.kill(os.getpid(), number)
