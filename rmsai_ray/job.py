"""CLI → config → Ray → flow → run record → exit code: what every job does around its one call."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any, TypeVar

import ray
import tyro
from ray._private import ray_constants
from ray._private.state import state as global_state
from rich.console import Console
from rich.text import Text

from rmsai_ray.compute import Cluster, Node
from rmsai_ray.errors import AlertsRaisedError, ConfigError, LakeHeldError, RejectLimitError, RmsaiError
from rmsai_ray.exposure import refuse_open_ray
from rmsai_ray.scrubbing import has_credentials, scrub, secrets_shown_by_ray
from rmsai_ray.terminal import printable

EXIT_DONE, EXIT_FAILED, EXIT_BAD_CONFIG, EXIT_TOO_MANY_REJECTS, EXIT_LAKE_HELD = 0, 1, 2, 3, 4
EXIT_ALERTS, EXIT_CRITICAL_ALERTS = 5, 6

LOCAL_OBJECT_STORE_BYTES = 1 << 30

T = TypeVar("T")

log = logging.getLogger(__name__)


class StopRequested(BaseException):
    """SIGTERM came. Finished units stay, the rest is for the next run of the same command."""


def run(
    config_type: type[T],
    flow: Callable[[T], object],
    *,
    presets: Mapping[str, T],
    argv: Sequence[str],
) -> int:
    """Parses ``[PRESET] [--option value …]``, runs the flow, and returns the exit code.

    ``demo`` is the preset where nothing is given. 0 done, 2 bad configuration, 3 more rejects than allowed,
    4 another run holds the lake, 5 done with new alerts, 6 with critical ones, 1 anything else.
    """
    console = Console(stderr=True)
    show_logs()
    try:
        refuse_shown_secrets(argv)
        config = parse(config_type, presets=presets, argv=argv)
        with stopping_on_sigterm():  # while the plan is made as well as in mid-run
            flow(config)
    except ConfigError as error:
        _say(console, "Configuration", error)
        return EXIT_BAD_CONFIG
    except RejectLimitError as error:
        _say(console, "Too many rejects", error)
        return EXIT_TOO_MANY_REJECTS
    except LakeHeldError as error:
        _say(console, "Held", error)
        return EXIT_LAKE_HELD
    except AlertsRaisedError as error:
        _say(console, "Alert", error)
        return EXIT_CRITICAL_ALERTS if error.is_critical else EXIT_ALERTS
    except RmsaiError as error:
        _say(console, "Failed", error)
        return EXIT_FAILED
    except (StopRequested, KeyboardInterrupt):
        console.print("Stopped. Finished units are kept; the same command goes on from here.")
        return EXIT_FAILED
    except Exception:
        # The outermost frame of a job: whatever went wrong becomes a traceback and exit code 1.
        log.exception("the job failed")
        return EXIT_FAILED
    return EXIT_DONE


def _say(console: Console, what: str, error: Exception) -> None:
    """An error may quote what an archive holds: nothing of it is markup, or obeyed by the terminal."""
    line = Text.assemble((f"{what}:", "bold red"), " ", printable(scrub(str(error)), keep="\n"))
    console.print(line, highlight=False, soft_wrap=True)


def refuse_shown_secrets(argv: Sequence[str]) -> None:
    """Raises ConfigError where secrets came in a way that lists of processes or Ray's dashboard show."""
    fix = "Make new ones, and give them to the nodes as their environment (cluster/README.md)."
    for argument in argv:
        if has_credentials(argument):
            raise ConfigError("argument", argument, "shows credentials to whoever lists jobs", fix)
    if shown := secrets_shown_by_ray():
        raise ConfigError("env_vars", shown, "came with the job, and Ray's dashboard shows them", fix)


class ScrubbingFormatter(logging.Formatter):
    """A formatter that keeps secrets to itself, also those in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return scrub(super().format(record))


def parse(config_type: type[T], *, presets: Mapping[str, T], argv: Sequence[str]) -> T:
    """The configuration: a preset (``demo`` for an empty command line), overridden by options."""
    arguments = list(argv) or ["demo"]
    description = f"Presets: {', '.join(presets)}; nothing at all is the preset 'demo'."
    if arguments[0] in presets:
        return tyro.cli(
            config_type, args=arguments[1:], default=presets[arguments[0]], description=description
        )
    return tyro.cli(config_type, args=arguments, description=description)


@contextmanager
def ray_session(*, num_cpus: int | None = None) -> Iterator[Cluster]:
    """A Ray to work on: the one that is running already, ``RAY_ADDRESS``'s, or a local one of our own.

    SIGTERM raises :class:`StopRequested` in the driver while the session is open.

    Raises:
        ConfigError: this Ray takes orders from whoever reaches it, see :mod:`rmsai_ray.exposure`.
    """
    owned = not ray.is_initialized()
    if owned:
        _start_ray(num_cpus)
    try:
        with stopping_on_sigterm():  # after ray.init, which installs a handler of its own
            refuse_open_ray(ray.get_runtime_context().gcs_address)
            yield _look_at_cluster()
    finally:
        if owned:
            ray.shutdown()


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM raises :class:`StopRequested` in the main thread while the block lasts."""
    previous = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def given_cluster() -> Iterator[None]:
    """A session on the cluster that the environment names: its exporter hears of runs without work too.

    Without one nothing is started.
    """
    with ray_session() if os.environ.get("RAY_ADDRESS") else nullcontext():
        yield


def _look_at_cluster() -> Cluster:
    nodes = tuple(
        Node(
            node_id=node["NodeID"],
            num_cpus=node["Resources"].get("CPU", 0.0),
            num_gpus=node["Resources"].get("GPU", 0.0),
            pool=node["Labels"].get("pool", ""),
        )
        for node in ray.nodes()
        if node["Alive"]
    )
    most = global_state.get_max_resources_from_cluster_config() or {}  # None without an autoscaler
    return Cluster(
        num_cpus=sum(node.num_cpus for node in nodes),
        num_gpus=sum(node.num_gpus for node in nodes),
        nodes=nodes,
        most_cpus=most.get("CPU", 0),
        most_gpus=most.get("GPU", 0),
    )


def _start_ray(num_cpus: int | None) -> None:
    os.environ.setdefault("RAY_DATA_NON_TTY_PROGRESS_LOG_INTERVAL", "60")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The retries of a unit must outlast the 15 s after which a cluster notices that a node is gone.
    os.environ.setdefault("RAY_task_actor_unavailable_retry_delay_base_ms", "5000")
    os.environ.setdefault("RAY_task_actor_unavailable_retry_max_delay_ms", "10000")
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for part in ("progress", "issue_detection"):  # "progress bars are off"; "a worker uses 300 MiB"
        logging.getLogger(f"ray.data._internal.{part}").setLevel(logging.ERROR)
    common: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**common)
        return
    # A Ray of our own, never another of this machine. It makes itself a token, and says so.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # Loopback only: Ray's own switch for laptops, which has no public name on Linux.
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        address="local",
        num_cpus=num_cpus,
        object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        **common,
    )


def _stop(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_IGN)  # what follows is the way out; nothing must interrupt it
    raise StopRequested


def show_logs() -> None:
    """What is meant for people to the terminal; all of this package to the run's own log.

    A record with ``fields`` is meant for programs, unless it is a warning.
    """
    for message in ("lance is not fork-safe", "lancedb fork support"):  # Ray's workers are fresh processes
        warnings.filterwarnings("ignore", message=message)
    # The only way to max_restarts:
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    logging.getLogger("rmsai_ray").setLevel(logging.INFO)
    terminal = logging.StreamHandler()
    terminal.addFilter(lambda record: record.levelno >= logging.WARNING or not hasattr(record, "fields"))
    terminal.setFormatter(ScrubbingFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[terminal])
