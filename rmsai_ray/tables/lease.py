"""One run at a time works on a lake: a lease object that a living holder renews and a dead one loses."""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import asdict, dataclass, replace
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
        if self._is_ours():
            self._store.delete([KEY])

    def confirm(self) -> None:
        """To be called before what only the holder may do.

        Raises:
            LakeError: another run took the lake meanwhile, e.g. while this machine slept.
        """
        if not self._is_ours():
            raise LakeError(
                f"run {self._run_id} lost {self._store.uri} to {self._holder() or 'nobody'}: it did not "
                "renew its lease in time. Finished units are kept; the same command goes on from here."
            )

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and replace(holder, renewed="") == replace(self._me(), renewed="")

    def _holder(self) -> Holder | None:
        content = self._store.find(KEY)
        return None if content is None else Holder(**json.loads(content))

    def _take_over(self) -> None:
        holder = self._holder()
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
                if self._is_ours():
                    self._store.put(KEY, self._content())
            except StorageError:
                continue  # the next renewal comes well before the lease expires

    def _content(self) -> bytes:
        return json.dumps(asdict(self._me())).encode()

    def _me(self) -> Holder:
        process = psutil.Process(os.getpid())
        return Holder(
            run_id=self._run_id,
            host=socket.gethostname(),
            pid=process.pid,
            process_started=process.create_time(),
            renewed=now().isoformat(),
        )
