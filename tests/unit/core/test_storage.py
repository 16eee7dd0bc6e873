"""Waiting for a storage: as long as was said, with growing pauses, and with words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tats_ray.checkpoints.weight_files import save_tensors
from tats_ray.core.errors import StorageError
from tats_ray.core.storage import persist, replace_text, whole_folder


class Storage:
    """Refuses for some seconds of a clock of its own."""

    def __init__(self, refuses_s: float) -> None:
        self.now = 100.0
        self.until = self.now + refuses_s
        self.pauses: list[float] = []
        self.notes: list[str] = []

    def write(self) -> str:
        if self.now < self.until:
            raise OSError(28, "No space left on device")
        return "written"

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def persist(self, retry_s: float) -> str:
        return persist(
            self.write,
            what="the file",
            retry_s=retry_s,
            on_note=self.notes.append,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def test_write_that_works_says_nothing() -> None:
    storage = Storage(0)
    assert storage.persist(10) == "written"
    assert (storage.pauses, storage.notes) == ([], [])


def test_refused_write_is_tried_again_after_growing_pauses_and_both_ends_are_told() -> None:
    storage = Storage(100)
    assert storage.persist(300) == "written"
    assert storage.pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert storage.notes == [
        "the file could not be written: [Errno 28] No space left on device; retrying for 300 s",
        "the file was written after 122 s",
    ]


@pytest.mark.parametrize("retry_s", [0.0, 7.0])
def test_write_is_given_up_after_the_stated_time_with_its_cause(retry_s: float) -> None:
    storage = Storage(1e9)
    with pytest.raises(StorageError, match=rf"for {retry_s:g} s: .*No space left.*--resume"):
        storage.persist(retry_s)
    assert sum(storage.pauses) == retry_s
    assert len(storage.notes) == 1


def test_error_that_is_not_the_storages_is_not_tried_again() -> None:
    def broken() -> None:
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        persist(broken, what="x", retry_s=1e9, on_note=lambda text: None)


def test_text_that_cannot_be_replaced_stays_and_leaves_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "name"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        replace_text(file, "\ud800")
    assert file.read_text() == "old"
    replace_text(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    new = tmp_path / "deep" / "new"

    def broken_off() -> None:
        with whole_folder(new) as draft:
            (draft / "file").write_text("half")
            assert not new.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert list(new.parent.iterdir()) == []
    with whole_folder(new) as draft:
        (draft / "file").write_text("whole")
    assert list(new.parent.rglob("*")) == [new, new / "file"]


def test_of_two_who_write_one_folder_at_a_time_the_first_to_end_has_it_whole(
    tmp_path: Path,
) -> None:
    new = tmp_path / "new"

    def interleaved() -> None:
        with whole_folder(new) as late:
            (late / "late").write_text("half")
            with whole_folder(new) as early:
                (early / "early").write_text("whole")

    with pytest.raises(OSError, match="not empty"):
        interleaved()
    assert list(tmp_path.rglob("*")) == [new, new / "early"]


def test_folder_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    other = tmp_path / "new" / "others"
    with pytest.raises(OSError, match="not empty"), whole_folder(tmp_path / "new"):
        other.mkdir(parents=True)  # meanwhile
    assert list(tmp_path.rglob("*")) == [tmp_path / "new", other]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_weights_are_as_open_to_others_as_any_other_new_file(
    tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        save_tensors(tmp_path / "w.safetensors", {"a": torch.ones(2)})
        assert os.umask(mask) == mask  # left as it was
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == mode
