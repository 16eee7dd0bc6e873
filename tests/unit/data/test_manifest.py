from __future__ import annotations

import re
from pathlib import Path

import pytest

from tats_ray.core.errors import UsageError
from tats_ray.data.manifest import VideoEntry, read_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b c.avi", "sub/d.mp4", "e,f.mp4", "3.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def _write(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def _error(path: Path, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        read_list(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("separator", ["\t", " ", ",", ", ", "  ", " \t"])
@pytest.mark.parametrize(
    "header", ["", "path{}label\n", "clip_name{}class_idx\n", "Video{}Label\n"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_list_reads_alike_under_any_separator_header_and_line_end(
    folder: Path, separator: str, header: str, end: str
) -> None:
    text = header.format(separator)
    text += "".join(f"{name}{separator}{i}{end}" for i, name in enumerate(("a.mp4", "b c.avi")))
    assert read_list(_write(folder, text)) == [
        VideoEntry(str(folder / "a.mp4"), 0),
        VideoEntry(str(folder / "b c.avi"), 1),
    ]


@pytest.mark.parametrize(
    ("line", "name", "label"),
    [
        ('"b c.avi" 4', "b c.avi", 4),
        ("'b c.avi',4", "b c.avi", 4),
        ('"b c.avi"\t4', "b c.avi", 4),
        ('"e,f.mp4",4', "e,f.mp4", 4),
        ("e,f.mp4\t4", "e,f.mp4", 4),
        ("e,f.mp4,4", "e,f.mp4", 4),
        ('"b c.avi"', "b c.avi", None),
        ("b c.avi", "b c.avi", None),
        ("3.mp4", "3.mp4", None),
        ("e,f.mp4", "e,f.mp4", None),
        ("a 7", "a.mp4", 7),
        ("sub/d\t0", "sub/d.mp4", 0),
        ("\ufeffa.mp4\t2", "a.mp4", 2),
    ],
)
def test_one_line_reads_as_path_and_label(
    folder: Path, line: str, name: str, label: int | None
) -> None:
    assert read_list(_write(folder, line + "\n")) == [VideoEntry(str(folder / name), label)]


def test_relative_paths_follow_the_root_and_absolute_ones_do_not(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lists = tmp_path_factory.mktemp("lists")
    path = _write(lists, f"a.mp4\t0\n{folder / 'sub' / 'd.mp4'}\t1\n")
    entries = read_list(path, root=str(folder))
    assert [entry.path for entry in entries] == [str(folder / "a.mp4"), str(folder / "sub/d.mp4")]


def test_unlabelled_list_with_a_header_and_blank_lines_has_no_labels(folder: Path) -> None:
    entries = read_list(_write(folder, "path\n\na.mp4\n\n3.mp4\n"))
    assert [entry.label for entry in entries] == [None, None]


@pytest.mark.parametrize("text", ["", "\n \n", "path\tlabel\n"])
def test_empty_list_is_refused(folder: Path, text: str) -> None:
    assert "empty" in _error(_write(folder, text))


def test_missing_list_is_refused_with_a_way_out(tmp_path: Path) -> None:
    error = _error(tmp_path / "nowhere.csv")
    assert "nowhere.csv: the list cannot be read (No such file" in error
    assert "one video per line" in error


def test_list_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "UTF-8" in _error(path)


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ("a.mp4\tx", "'x' is not a class id"),
        ("a.mp4\t0\t-1", "VideoMAEv2's form"),
        ("a.mp4 0 -1", "VideoMAEv2's form"),
        ("a.mp4 0 300 7", "VideoMAEv2's form"),
        ("a.mp4::3", "write a tab or a space instead"),
        ("a.mp4 jumping", "'jumping' is not a class id; write the number of the class"),
        ("b c.avi,jumping", "'jumping' is not a class id"),
        ('"a.mp4" 1.5', "'1.5' is not a class id"),
        ("\t5", "line 1 has a label"),  # stripped, this is the path "5"
        (",5", "there is no path"),
        ("a.mp4", "line 1 has a label"),
    ],
)
def test_first_bad_line_is_named_with_its_text(folder: Path, bad: str, part: str) -> None:
    message = _error(_write(folder, f"a.mp4\t0\n{bad}\n{bad}\n"))
    assert "line 2: " in message
    assert bad.strip() in message.replace("\\t", "\t")
    assert part in message


def test_label_after_unlabelled_lines_is_refused(folder: Path) -> None:
    assert "line 1 has none" in _error(_write(folder, "a.mp4\n3.mp4 1\n"))


@pytest.mark.parametrize(("label", "num_classes"), [(-1, None), (-1, 5), (5, 5), (6, 5)])
def test_class_id_out_of_range_is_refused(
    folder: Path, label: int, num_classes: int | None
) -> None:
    path = _write(folder, f"a.mp4\t0\na.mp4\t{label}\n")
    assert re.search(
        rf"line 2: 'a.mp4 {label}'.*class ids must be 0", _error(path, num_classes=num_classes)
    )


def test_class_id_that_is_too_high_names_the_field_that_says_so(folder: Path) -> None:
    message = _error(_write(folder, "a.mp4 7\n"), num_classes=5)
    assert "0 to 4, since data.num_classes is 5; raise it, or correct the list" in message


def test_largest_class_id_is_accepted(folder: Path) -> None:
    assert read_list(_write(folder, "a.mp4\t4\n"), num_classes=5)[0].label == 4


def test_missing_videos_are_counted_and_the_first_is_named(folder: Path) -> None:
    message = _error(_write(folder, "path\tlabel\na.mp4\t0\nx.mp4\t1\na.mp4\t1\ny.mp4\t1\n"))
    assert "line 3: " in message
    assert str(folder / "x.mp4") in message
    assert "2 of 4" in message


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<!DOCTYPE html>\n<html><body>404</body></html>\n", "a web page"),
        ('{"id": "v1", "template": "Pushing"}\n', "a JSON file"),
        ('[{"id": "v1"},\n {"id": "v2"}]\n', "a JSON file"),
        ("1 ApplyEyeMakeup\n2 ApplyLipstick\n", "UCF101's classInd.txt"),
    ],
)
def test_file_of_another_kind_is_told_by_its_kind(folder: Path, text: str, what: str) -> None:
    assert f"looks like {what}" in _error(_write(folder, text))


def test_class_ids_from_one_to_n_are_told_as_such(folder: Path) -> None:
    path = _write(folder, "a.mp4 1\n3.mp4 2\na.mp4 3\n")
    message = _error(path, num_classes=3)
    assert "class ids run from 1 to 3" in message
    assert "subtract 1 from each" in message
    assert [entry.label for entry in read_list(path)] == [1, 2, 3]


def test_one_missing_video_is_told_in_the_singular(folder: Path) -> None:
    assert "1 of 1 video is missing" in _error(_write(folder, "x.mp4\n"))
