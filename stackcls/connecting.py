"""Connecting to a Dask cluster, or starting one on this machine; Dask is looked up only when one is asked for."""

import json
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from stackcls import __version__, cores
from stackcls.cluster import Cluster
from stackcls.clustersettings import CONFIGURED, INSTALL, ClusterSettings
from stackcls.crew import ABSENT, CALL, has_resources
from stackcls.errors import ClusterError, ConfigError
from stackcls.listener import Listener
from stackcls.printable import counted

CLOSING = 10.0


@contextmanager
def connect(settings: ClusterSettings, listener: Listener) -> Iterator[Cluster | None]:
    """Connect to the cluster that the settings name, or start one on this machine; None where they name none.

    Raises
    ------
    ConfigError
        If Dask is not installed, or what should name a scheduler does not.
    ClusterError
        If the scheduler does not answer.
    """
    if settings.address is None:
        yield None
        return
    try:
        import distributed
        from distributed.utils import silence_logging_cmgr
    except ImportError as error:
        raise ConfigError(
            f"cluster.address: {settings.address!r} needs Dask, which cannot be imported ({error}): {INSTALL}"
        ) from None
    with ExitStack() as stack:
        # What it says of workers that come and go is for those who run the cluster; they have its logs.
        for name in ("distributed", "tornado"):
            stack.enter_context(silence_logging_cmgr(logging.CRITICAL + 1, name))
        where: Any = _address(settings)
        if settings.processes:
            listener.say(f"{settings.address}: starting {counted(settings.processes, 'process', 'processes')}")
            where = _start(settings, stack)
        else:
            listener.say(f"connecting to {where}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", category=distributed.versions.VersionMismatchWarning)
            client = _client(where, settings, stack)
        for item in caught:
            if issubclass(item.category, distributed.versions.VersionMismatchWarning):
                listener.warn(f"{settings.address}: client, scheduler and workers differ: {item.message}")
        if isinstance(where, str):
            _check_installed(client, settings)
        cluster = Cluster(client, settings, listener)
        cluster.crew.introduce()
        yield cluster


def _check_installed(client: Any, settings: ClusterSettings) -> None:
    """Refuse a scheduler and workers without stackcls: a worker ends where it is given what it cannot import.

    Workers that come later are not asked.
    """
    ask, wanted = partial(client.sync, callback_timeout=settings.timeout), CALL
    lacking: list[tuple[str, Exception]] = []
    try:
        workers = ask(client.scheduler.identity, n_workers=-1)["workers"]
        able = [address for address, one in workers.items() if has_resources(one, settings)]
        answers = ask(client.run, resolve_name, wanted, workers=able, on_error="return")
        lacking += [(name, answer) for name, answer in answers.items() if isinstance(answer, ABSENT)]
        ask(client.run_on_scheduler, resolve_name, wanted)
    except ABSENT as error:
        lacking.append(("the scheduler", error))
    except (OSError, TimeoutError):
        return  # lost, or busy: whatever is asked of it next says so
    if lacking:
        where, why = lacking[0]
        others = f", nor at {len(lacking) - 1} others" if len(lacking) > 1 else ""
        raise ClusterError(
            f"cluster.address: {settings.address!r}: stackcls cannot be imported at {where} ({why}){others}: install "
            f"{__version__} where scheduler and workers are started ({INSTALL})"
        )


def _client(where: Any, settings: ClusterSettings, stack: ExitStack) -> Any:
    """A connection to a scheduler, or to processes that were started."""
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port

    # Made in two steps, since what fails in its `__init__` has to be closed too.
    client = Client.__new__(Client)
    stack.callback(_leave, client)
    try:
        if isinstance(where, str):
            get_address_host_port(where, strict=True)
        client.__init__(where, timeout=settings.timeout, set_as_default=False)  # type: ignore[misc]
    except (ValueError, TypeError, FileNotFoundError) as error:  # a TLS address without certificates is a TypeError
        raise ConfigError(
            f"cluster.address: {settings.address!r}: {where} cannot be used ({error}): give what `dask scheduler` "
            "says, tcp://HOST:PORT; tls:// needs certificates, by Dask's configuration (distributed.comm.tls)"
        ) from None
    except OSError as error:
        raise ClusterError(
            f"cluster.address: {settings.address!r}: no scheduler answers at {where} within {settings.timeout:g} s "
            f"({error}): start one with `dask scheduler`, or mend the address"
        ) from None
    return client


def _start(settings: ClusterSettings, stack: ExitStack) -> Any:
    """Processes on this machine, each with its share of the processors; nobody else can reach or command them."""
    import dask
    from distributed import LocalCluster

    number, configured = settings.processes or 1, dask.config.get("distributed.worker.preload")
    # Else Dask gives up a process that died where its successor takes longer to start, and the run waits for ever.
    stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"}))
    try:
        with _undisturbed():
            local = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=number,
                threads_per_worker=max(1, cores.available() // number),
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                security=True,  # other users of this machine can open its ports, but have no certificate
                memory_limit=0,  # as without a cluster
                resources=dict(settings.resources) or None,
                silence_logs=logging.CRITICAL + 1,
                preload=[__name__, *([configured] if isinstance(configured, str) else configured)],
            )
            stack.callback(_close, local)
    except ImportError as error:
        raise ConfigError(f"cluster.address: {settings.address!r} needs more of Dask ({error}): {INSTALL}") from None
    except Exception as error:  # noqa: BLE001  (a process that ends while it starts shows in many ways)
        raise ClusterError(
            f"cluster.address: {settings.address!r}: the processes cannot be started ({error.__cause__ or error}); "
            "try fewer; in a script of your own, stand below `if __name__ == '__main__':`"
        ) from None
    return local


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait: a cluster that is half made cannot be closed. Processes that begin here never hear it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    blocks = hasattr(signal, "pthread_sigmask")  # which threads and processes that begin meanwhile inherit
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else ()
    try:
        yield
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if came:
            raise KeyboardInterrupt


def dask_setup(_: Any) -> None:
    """Prepare a process of this machine, by Dask's name for that: Ctrl-C is for the run, which ends its processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(client: Any) -> None:
    """Close a client now: one that the garbage collector closes may wait for a lock that its own thread holds."""
    if hasattr(client, "status"):  # else it was never begun
        _close(client)
        client.status = "closed"


def _close(it: Any) -> None:
    with suppress(Exception):  # what is lost already need not be closed
        it.close(timeout=CLOSING)


def _address(settings: ClusterSettings) -> str:
    """Where the scheduler is, by the settings, a file that they name, or Dask's own configuration."""
    import dask

    said = settings.address or ""
    try:
        if said.endswith(".json"):
            return str(json.loads(Path(said).read_text("utf-8"))["address"])
        if said.endswith((".yaml", ".yml")):
            Path(said).read_bytes()  # which says why, where Dask passes over it
            dask.config.update(dask.config.config, dask.config.merge(*dask.config.collect_yaml([said])))
        elif said != CONFIGURED:
            return said
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cluster.address: {said!r} cannot be used ({type(error).__name__}: {error}): it must be a scheduler file "
            "or a Dask configuration with a `scheduler-address`"
        ) from None
    if found := dask.config.get("scheduler-address", None):
        return str(found)
    raise ConfigError(
        f"cluster.address: {said!r}: there is no `scheduler-address` in Dask's configuration: set it there or in "
        "$DASK_SCHEDULER_ADDRESS, or give the address itself"
    )
