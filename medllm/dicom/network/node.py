"""The node: takes images in, explains complete studies, and sends the results, for ever."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medllm.dicom.network.delivery import Delivery, Send
from medllm.dicom.network.disk import Outcome
from medllm.dicom.network.inbox import Inbox
from medllm.dicom.network.journal import cause, tell
from medllm.dicom.network.reception import Access, reception
from medllm.errors import DicomError, MedllmError

# Writes the results of an image into an empty folder; what ends in .dcm is sent back.
Explain = Callable[[Path, Path], None]
MAX_TRIES = 3
_POLL_S = 0.5
# EFBIG is what a limit on the size of files gives.
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class PassedOverError(MedllmError):
    """An object of a study that is not for explaining, such as a structured report."""

    code = "passed-over"


@dataclass(frozen=True)
class Pace:
    """How long the node waits for what.

    Attributes:
        quiet_s: Seconds without a new image after which a study counts as complete.
        retry_s: Seconds before a failed image is tried again; each further time four times more.
        resend_s: Seconds before results that were not taken are sent again; each further time
            twice as many, up to ten minutes.
    """

    quiet_s: float = 30.0
    retry_s: float = 60.0
    resend_s: float = 5.0


class Node:
    """A DICOM node that explains what it is sent."""

    def __init__(
        self,
        inbox: Inbox,
        explain: Explain,
        send: Send | None = None,
        *,
        access: Access | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Make a node; `run` starts it.

        Args:
            inbox: Where images and results are kept.
            explain: Writes an image's results into a folder. It raises a `PassedOverError` for
                what is not for explaining, a `DicomError` for an image at fault; after any
                other error the image is tried again.
            send: Sends results back; None leaves them in the inbox.
            access: Where images come from.
            pace: How long is waited.
        """
        self.port: int | None = None
        self._inbox, self._explain = inbox, explain
        self._access, self._pace = access or Access(), pace or Pace()
        self._delivery = Delivery(inbox, send, self._pace.resend_s)
        self._stop_asked = False
        self._due: dict[str, float] = {}
        self._due_lock = threading.Lock()

    def stop(self) -> None:
        """Finish the image that is being explained, and return from `run`.

        It only sets a flag: a signal's handler may call it, and may take no lock.
        """
        self._stop_asked = True

    def run(self) -> None:
        """Take in, explain and send, until `stop` is called.

        Raises:
            NetworkError: The port cannot be listened on.
        """
        with reception(self._access, self._inbox, self._arrived) as self.port:
            tell(
                "listening",
                address=f"{self._access.host}:{self.port}",
                ae_title=self._access.ae_title,
                waiting=len(self._inbox.waiting()),
                outgoing=len(self._inbox.outgoing()),
            )
            self._delivery.start()
            while not self._stop_asked:
                self._step()
        self._delivery.stop()
        tell("stopped", waiting=len(self._inbox.waiting()))

    def _step(self) -> None:
        try:
            study = self._next_complete()
            if study is not None:
                self._work(study)
                return
        except OSError as error:
            # The inbox's disk fails: what was acknowledged stays where it is until that passes, and
            # is then claimed from there.
            tell("failed", cause=cause(error))
        time.sleep(min(_POLL_S, self._pace.quiet_s))

    def _arrived(self, study: str) -> None:
        self._not_before(study, self._pace.quiet_s)

    def _not_before(self, study: str, seconds: float) -> None:
        due = time.monotonic() + seconds
        with self._due_lock:
            self._due[study] = max(due, self._due.get(study, due))

    def _next_complete(self) -> str | None:
        """Choose the study that has been complete for longest.

        One that this process saw no image of, since it was killed and started again, or since
        an operator put it there, is waited for as if it had come now.
        """
        now = time.monotonic()
        with self._due_lock:
            due = {
                study: self._due.setdefault(study, now + self._pace.quiet_s)
                for study in self._inbox.waiting()
            }
            study = min(due, key=due.__getitem__, default=None)
            if study is None or due[study] > now:
                return None
            del self._due[study]
        return study

    def _work(self, study: str) -> None:
        images = self._inbox.claim(study)
        if images:
            tell("complete", study=study, images=len(images))
        try:
            for image in images:
                if self._stop_asked:
                    break
                if pause := self._try(image):
                    self._not_before(study, pause)
        finally:
            self._inbox.give_back(study)

    def _try(self, image: Path) -> float:
        """Explain an image; where that failed and may pass, say after which pause."""
        study, started, tries = image.parent.name, time.monotonic(), 0
        try:
            tries = self._inbox.count_try(image)
            if tries >= MAX_TRIES:
                raise DicomError(
                    f"it was tried {tries} times, and the process ended or it failed; explain it "
                    "by hand.",
                    code="tried-in-vain",
                )
            with self._inbox.new_results() as results:
                outcome = self._outcome(image, results, tries + 1)
                self._inbox.finish(image, results, outcome)
        except DicomError as error:
            return self._reject(image, error, tries)
        except Exception as error:  # noqa: BLE001  told, and tried again
            return self._failed(image, error, tries + 1)
        self._delivery.wake()
        reason = {} if outcome.code is None else {"code": outcome.code}
        seconds = f"{time.monotonic() - started:.1f}"
        tell(outcome.outcome, study=study, image=image.stem, seconds=seconds, **reason)
        return 0

    def _outcome(self, image: Path, results: Path, tries: int) -> Outcome:
        try:
            self._explain(image, results)
        except PassedOverError as error:
            return Outcome("passed-over", error.code, cause(error), tries)
        return Outcome("explained", tries=tries)

    def _failed(self, image: Path, error: Exception, tries: int) -> float:
        tell("failed", study=image.parent.name, image=image.stem, tries=tries, cause=cause(error))
        if _is_disk_full(error):
            # Not the image's fault, and it passes when somebody makes room.
            self._inbox.forget_tries(image)
            return self._pace.retry_s
        if tries < MAX_TRIES:
            return self._pace.retry_s * 4.0 ** (tries - 1)
        return self._reject(image, error, tries)

    def _reject(self, image: Path, error: Exception, tries: int) -> float:
        code = error.code if isinstance(error, MedllmError) else type(error).__name__
        self._inbox.reject(image, Outcome("rejected", code, cause(error), tries))
        tell("rejected", study=image.parent.name, image=image.stem, code=code, cause=cause(error))
        return 0


def _is_disk_full(error: BaseException) -> bool:
    causes = (error, error.__cause__)
    return any(isinstance(one, OSError) and one.errno in _DISK_FULL for one in causes)
