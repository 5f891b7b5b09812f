"""One run at a time works on a lake: a lease object that a living holder renews and a dead one loses."""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from types import TracebackType

import psutil

from rmsai_ray.errors import LakeError, StorageError
from rmsai_ray.runs import now
from rmsai_ray.storage import Store

KEY = "runs/lease.json"
RENEW_S = 20.0
EXPIRES_AFTER = timedelta(seconds=120)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who works on a lake."""

    run_id: str
    host: str
    pid: int
    process_started: float
    """Epoch seconds; tells a process from a later one of the same number."""
    renewed: str

    def is_alive(self) -> bool:
        """False where the process is known to be gone, or has not renewed the lease for too long."""
        if self.host == socket.gethostname():
            try:
                started: float = psutil.Process(self.pid).create_time()
            except psutil.NoSuchProcess:
                return False
            return abs(started - self.process_started) < 1
        return now() - datetime.fromisoformat(self.renewed) < EXPIRES_AFTER


class Lease:
    """Holds a lake for a run, as a context manager.

    Raises:
        LakeError: another living run holds it; says which, where and since when.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        if not self._store.create(KEY, self._content()):
            self._take_over()
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._renewer.join()
        self._store.delete([KEY])

    def _take_over(self) -> None:
        content = self._store.find(KEY)
        holder = None if content is None else Holder(**json.loads(content))
        if holder is not None and holder.is_alive():
            raise LakeError(
                f"{self._store.uri} is held by run {holder.run_id} (process {holder.pid} on {holder.host}, "
                f"last seen {holder.renewed}). Wait for it, or stop it; a lease of a dead run ends by itself."
            )
        self._store.delete([KEY])
        if not self._store.create(KEY, self._content()):
            raise LakeError(f"{self._store.uri} was taken by another run just now. Try again.")

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                self._store.put(KEY, self._content())
            except StorageError:
                continue  # the next renewal comes well before the lease expires

    def _content(self) -> bytes:
        process = psutil.Process(os.getpid())
        holder = Holder(
            run_id=self._run_id,
            host=socket.gethostname(),
            pid=process.pid,
            process_started=process.create_time(),
            renewed=now().isoformat(),
        )
        return json.dumps(asdict(holder)).encode()
