from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from medllm.dicom.network import inbox as inbox_module
from medllm.dicom.network.disk import Outcome
from medllm.dicom.network.inbox import Inbox, OtherContentError
from medllm.errors import MedllmError

STUDY, OTHER = "a" * 16, "b" * 16
NAME = "1" * 16 + "-" + "2" * 16
CHANGED = "1" * 16 + "-" + "3" * 16
EXPLAINED = Outcome("explained", tries=1)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "inbox"


def files(root):
    """All files of the inbox but the lock, by their paths."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(root)) for path in paths}


def explain(inbox, study=STUDY):
    """Explain a study's images as the node does: two files of results each."""
    for image in inbox.claim(study):
        inbox.count_try(image)
        with inbox.new_results() as results:
            (results / "dicom").mkdir()
            (results / "dicom" / "sr.dcm").write_bytes(b"result of " + image.read_bytes())
            inbox.finish(image, results, EXPLAINED)
    inbox.give_back(study)


def test_an_image_goes_from_folder_to_folder_and_leaves_none_behind(root):
    with Inbox(root) as inbox:
        assert inbox.take_in(STUDY, NAME, b"image")
        assert files(root) == {f"waiting/{STUDY}/{NAME}.dcm"}
        (image,) = inbox.claim(STUDY)
        assert files(root) == {f"working/{STUDY}/{NAME}.dcm"}
        assert image.read_bytes() == b"image"
        inbox.give_back(STUDY)
        explain(inbox)
        made = {f"{STUDY}/{NAME}/outcome.json", f"{STUDY}/{NAME}/dicom/sr.dcm"}
        assert files(root) == {f"outgoing/{path}" for path in made}
        (results,) = inbox.outgoing()
        inbox.sent(results)
        assert files(root) == {f"done/{STUDY}/{NAME}/outcome.json"}
        assert inbox.waiting() == inbox.outgoing() == []
        record = json.loads((root / "done" / STUDY / NAME / "outcome.json").read_text())
        assert (record["outcome"], record["tries"]) == ("explained", 1)


def test_results_that_are_not_sent_stay(root):
    with Inbox(root) as inbox:
        inbox.take_in(STUDY, NAME, b"image")
        explain(inbox)
        inbox.sent(*inbox.outgoing(), keep=True)
        assert f"done/{STUDY}/{NAME}/dicom/sr.dcm" in files(root)


def _reject(inbox):
    (image,) = inbox.claim(STUDY)
    inbox.reject(image, Outcome("rejected", "truncated", "It is cut off.", 1))
    inbox.give_back(STUDY)


def _deliver(inbox):
    explain(inbox)
    inbox.sent(*inbox.outgoing())


WAYS = {
    "waiting": lambda inbox: None,
    "working": lambda inbox: inbox.claim(STUDY),
    "outgoing": explain,
    "done": _deliver,
    "rejected": _reject,
}


@pytest.mark.parametrize("state", WAYS)
def test_what_came_before_is_not_taken_twice_wherever_it_is(root, state):
    with Inbox(root) as inbox:
        inbox.take_in(STUDY, NAME, b"image")
        WAYS[state](inbox)
        before = files(root)
        assert not inbox.take_in(STUDY, NAME, b"image")
        assert files(root) == before
        assert inbox.take_in(OTHER, NAME, b"image"), "another study is another image"


@pytest.mark.parametrize("state", ["waiting", "working", "outgoing", "done"])
def test_other_content_under_the_same_uid_is_not_taken(root, state):
    with Inbox(root) as inbox:
        inbox.take_in(STUDY, NAME, b"image")
        WAYS[state](inbox)
        before = files(root)
        with pytest.raises(OtherContentError, match="other content"):
            inbox.take_in(STUDY, CHANGED, b"changed")
        assert files(root) == before


def test_an_image_that_was_rejected_may_come_again_corrected(root):
    with Inbox(root) as inbox:
        inbox.take_in(STUDY, NAME, b"cut off")
        _reject(inbox)
        assert inbox.take_in(STUDY, CHANGED, b"whole")
        reason = json.loads((root / "rejected" / STUDY / f"{NAME}.json").read_text())
        assert (reason["code"], reason["message"]) == ("truncated", "It is cut off.")


def test_images_that_come_while_their_study_is_explained_queue_anew(root):
    with Inbox(root) as inbox:
        inbox.take_in(STUDY, NAME, b"image")
        (first,) = inbox.claim(STUDY)
        late = "9" * 16 + "-" + "9" * 16
        inbox.take_in(STUDY, late, b"late")
        with inbox.new_results() as results:
            inbox.finish(first, results, EXPLAINED)
        inbox.give_back(STUDY)
        assert [image.stem for image in inbox.claim(STUDY)] == [late]


@pytest.mark.parametrize("method", ["write_bytes", "rename"])
def test_a_disk_that_fails_keeps_nothing_half_written(root, monkeypatch, method):
    with Inbox(root) as inbox:

        def fail(path, *arguments):
            if method == "write_bytes":  # as much as there was room for
                with path.open("wb") as file:
                    file.write(arguments[0][:2])
            raise OSError(errno.ENOSPC, "no room")

        with monkeypatch.context() as patch:
            patch.setattr(type(root), method, fail)
            with pytest.raises(OSError, match="no room"):
                inbox.take_in(STUDY, NAME, b"image")
        assert files(root) == set()
        assert inbox.take_in(STUDY, NAME, b"image")


def test_room_is_left_for_results(root, monkeypatch):
    free = 2 * inbox_module.RESERVE_BYTES
    with Inbox(root) as inbox:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(inbox_module.shutil, "disk_usage", lambda _: usage)
        assert inbox.take_in(STUDY, NAME, b"x" * 1000)
        usage.free = inbox_module.RESERVE_BYTES + 999
        with pytest.raises(OSError, match="space"):
            inbox.take_in(OTHER, NAME, b"x" * 1000)


def test_a_killed_nodes_work_goes_back_into_the_queue(root):
    first = Inbox(root)
    first.take_in(STUDY, NAME, b"image")
    (image,) = first.claim(STUDY)
    assert first.count_try(image) == 0
    (root / "drafts" / "half").write_bytes(b"ima")
    os.close(first._lock_file)  # what a kill does
    with Inbox(root) as second:
        assert files(root) == {f"waiting/{STUDY}/{NAME}.dcm", f"waiting/{STUDY}/{NAME}.tries"}
        (image,) = second.claim(STUDY)
        assert second.count_try(image) == 1


def test_a_kill_between_keeping_results_and_removing_the_image_explains_nothing_twice(
    root, monkeypatch
):
    first = Inbox(root)
    first.take_in(STUDY, NAME, b"image")
    with monkeypatch.context() as patch:

        def killed(_):
            raise KeyboardInterrupt

        patch.setattr(inbox_module, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            explain(first)
    os.close(first._lock_file)
    with Inbox(root) as second:
        assert second.waiting() == [STUDY]
        assert second.claim(STUDY) == []
        second.give_back(STUDY)
        assert second.waiting() == []
        assert len(second.outgoing()) == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("n_moved", [0, 1])
def test_what_a_failing_disk_kept_from_being_given_back_is_claimed_again(
    root, monkeypatch, n_moved, late
):
    names = [f"{digit * 16}-{digit * 16}" for digit in "12"]
    with Inbox(root) as inbox:
        for name in names:
            inbox.take_in(STUDY, name, b"image")
        inbox.claim(STUDY)
        left, rename = iter(range(n_moved)), type(root).rename

        def fail(path, target):
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "no room")
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(type(root), "rename", fail)
            with pytest.raises(OSError, match="no room"):
                inbox.give_back(STUDY)
        if late:
            names.append("9" * 16 + "-" + "9" * 16)
            inbox.take_in(STUDY, names[-1], b"late")
        assert inbox.waiting() == [STUDY]
        assert [image.stem for image in inbox.claim(STUDY)] == names
        inbox.give_back(STUDY)
        assert files(root) == {f"waiting/{STUDY}/{name}.dcm" for name in names}


def test_a_disk_that_fails_while_a_study_is_claimed_strands_nothing(root, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "broken")

    with Inbox(root) as inbox:
        inbox.take_in(STUDY, NAME, b"image")
        with monkeypatch.context() as patch:
            patch.setattr(inbox_module, "_remove", fail)
            with pytest.raises(OSError, match="broken"):
                explain(inbox)  # the results are kept, the image is not removed
            inbox.give_back(STUDY)
            with pytest.raises(OSError, match="broken"):
                inbox.claim(STUDY)
        assert inbox.waiting() == [STUDY]
        assert inbox.claim(STUDY) == []
        inbox.give_back(STUDY)
        assert inbox.waiting() == []
        assert len(inbox.outgoing()) == 1


def test_a_second_node_is_kept_out_until_the_first_is_gone(root):
    with Inbox(root), pytest.raises(MedllmError, match="another medllm listen") as caught:
        Inbox(root)
    assert caught.value.code == "inbox-in-use"
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from medllm.dicom.network.inbox import Inbox; inbox = Inbox(Path(sys.argv[1])); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, root], check=False)  # noqa: S603
    assert killed.returncode == -9
    Inbox(root).__exit__()


def test_an_inbox_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MedllmError, match="cannot be written to"):
        Inbox(tmp_path / "file" / "inbox")


def test_a_system_without_file_locks_is_told(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with pytest.raises(MedllmError, match="wanted is Linux or macOS") as caught:
        Inbox(root)
    assert caught.value.code == "unsupported-system"


def test_nobody_else_may_read_an_inbox(root):
    with Inbox(root):
        assert root.stat().st_mode & 0o077 == 0
