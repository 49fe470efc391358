"""Results on their way back: sent as soon as they are there, and again until they are taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from medllm.dicom.network.inbox import Inbox
from medllm.dicom.network.journal import cause, tell
from medllm.dicom.network.retry import TRANSIENT
from medllm.errors import NetworkError

# Sends files, or raises a `NetworkError`.
Send = Callable[[Sequence[Path]], None]

_LONGEST_PAUSE_S = 600.0
_PEER = "the peer"


class Delivery:
    """Sends an inbox's results in a thread of its own, so that no PACS holds up the explaining."""

    def __init__(self, inbox: Inbox, send: Send | None, pause_s: float) -> None:
        """Make it; `start` begins.

        Args:
            inbox: Where the results are queued.
            send: Sends an image's results; None leaves them in the inbox.
            pause_s: Seconds after a first failure; each further one waits twice as long.
        """
        self._inbox, self._send, self._pause_s = inbox, send, pause_s
        self._ended, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        # How often something failed in a row, and when it may be tried again. A PACS that is away
        # is one such thing for all results; what it refuses waits without the others.
        self._failed: dict[str, tuple[int, float]] = {}

    def start(self) -> None:
        """Begin to send what is queued."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue now: there is something new."""
        self._woken.set()

    def stop(self) -> None:
        """End after the transfer in progress, or without it if it takes long.

        What it does not finish stays queued, and a PACS that has some of it already knows it by
        its UIDs.
        """
        self._ended.set()
        self._woken.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._woken.clear()
            try:
                pause = self._send_all()
            except OSError as error:
                # The inbox's disk fails: the results stay where they are until that passes.
                tell("failed", cause=cause(error))
                pause = self._pause_s
            self._woken.wait(pause)

    def _send_all(self) -> float | None:
        """Send what is due; tell after how many seconds something of the rest is, if any."""
        pauses = []
        for results in self._inbox.outgoing():
            if self._ended.is_set():
                break
            pause = max(self._pause(_PEER), self._pause(results.name))
            if pause <= 0:
                pause = self._try(results)
            pauses.append(pause)
        return min((pause for pause in pauses if pause > 0), default=None)

    def _try(self, results: Path) -> float:
        where = {"study": results.parent.name, "image": results.name}
        files = sorted(results.rglob("*.dcm"))
        try:
            if self._send is not None and files:
                self._send(files)
            self._inbox.sent(results, keep=self._send is None)
        except Exception as error:  # noqa: BLE001  told, kept, and tried again
            tell("not-sent", **where, cause=cause(error))
            away = isinstance(error, NetworkError) and error.code in TRANSIENT
            return self._later(_PEER if away else results.name)
        self._failed.pop(_PEER, None)
        self._failed.pop(results.name, None)
        tell("kept" if self._send is None else "sent", **where, files=len(files))
        return 0.0

    def _pause(self, what: str) -> float:
        return self._failed.get(what, (0, 0.0))[1] - time.monotonic()

    def _later(self, what: str) -> float:
        n_before = self._failed.get(what, (0, 0.0))[0]
        pause = min(self._pause_s * 2.0 ** min(n_before, 20), _LONGEST_PAUSE_S)
        self._failed[what] = (n_before + 1, time.monotonic() + pause)
        return pause
