from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tats_ray.core.errors import UsageError
from tats_ray.data.catalog.make_lists import MadeLists, index_dataset
from tats_ray.data.manifest import read_list
from tests.full_disk import disk_full_at

UCF = [f"Class{chr(65 + n // 26)}{chr(97 + n % 26)}" for n in range(101)]
HMDB = [f"class_{n:02d}" for n in range(51)]
K400 = [f'doing thing\'s no. {n:03d}, "well"' for n in range(400)]
SSV2 = [f"Pushing [something] {n} times" for n in range(174)]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def ucf101(root: Path, end: str = "\r\n") -> Path:
    """A download: three videos of the first two classes, lists in a folder of their own."""
    lists = root / "ucfTrainTestlist"
    put(lists / "classInd.txt", "".join(f"{i} {name}{end}" for i, name in enumerate(UCF, 1)))
    names = [f"{UCF[0]}/v_a_g08_c01.avi", f"{UCF[1]}/v_b_g08_c01.avi", f"{UCF[0]}/v_a_g01_c01.avi"]
    put(lists / "trainlist01.txt", f"{names[0]} 1{end}{names[1]} 2{end}")
    put(lists / "testlist01.txt", f"{names[2]}{end}")
    touch(root / "UCF-101", *names)
    return root


def hmdb51(root: Path) -> Path:
    lists = root / "testTrainMulti_7030_splits"
    for name in HMDB:
        put(
            lists / f"{name}_test_split1.txt",
            f"{name}#1.avi 1 \n{name}#2.avi 2 \n{name}#3.avi 0 \n",
        )
    touch(root, *(f"{name}/{name}/{name}#{n}.avi" for name in HMDB for n in (1, 2, 3)))
    return root


def k400(root: Path) -> Path:
    def csv(split: str, start: int) -> str:
        quoted = ['"' + name.replace('"', '""') + '"' for name in K400]
        rows = (f"{name},-id_{i},{start},{start + 10},{split}\n" for i, name in enumerate(quoted))
        return "\ufefflabel,youtube_id,time_start,time_end,split\n" + "".join(rows)

    put(root / "annotations" / "train.csv", csv("train", 5))
    put(root / "annotations" / "validate.csv", csv("validate", 7))
    put(
        root / "annotations" / "test.csv",
        "youtube_id,time_start,time_end,split\n-id_9,1.0,11.0,test\n",
    )
    touch(root, "train/-id_0_000005_000015.mp4", f"val/{K400[1]}/-id_1_000007_000017.mkv")
    touch(root, "test/-id_9_000001_000011.mp4")
    return root


def ssv2(root: Path) -> Path:
    labels = {name.replace("[", "").replace("]", ""): str(n) for n, name in enumerate(SSV2)}
    put(root / "labels" / "labels.json", json.dumps(labels))
    put(root / "labels" / "train.json", json.dumps([{"id": "7", "template": SSV2[3]}]))
    put(root / "labels" / "validation.json", json.dumps([{"id": "8", "template": SSV2[4]}]))
    put(root / "labels" / "test.json", json.dumps([{"id": "9"}]))
    touch(root, *(f"20bn-something-something-v2/{n}.webm" for n in (7, 8, 9)))
    return root


def rows(made: MadeLists, split: str) -> list[tuple[str, int | None]]:
    return [(Path(e.path).name, e.label) for e in read_list(made.files[split])]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_ucf101_as_it_comes_from_its_site(tmp_path: Path, end: str, mark: str) -> None:
    root = ucf101(tmp_path / "UCF101", end)
    index = root / "ucfTrainTestlist" / "classInd.txt"
    index.write_bytes((mark + index.read_bytes().decode()).encode())
    made = index_dataset("ucf101", root)
    assert rows(made, "train") == [("v_a_g08_c01.avi", 0), ("v_b_g08_c01.avi", 1)]
    assert rows(made, "val") == rows(made, "test") == [("v_a_g01_c01.avi", 0)]
    assert json.loads((root / "classes.json").read_text()) == UCF
    told = str(made).splitlines()
    assert told[0] == "UCF101, split 1: 3 videos, 101 classes"
    assert f"  {root}/train.csv  2" in told
    assert f"  {root}/UCF-101/{UCF[1]}/v_b_g08_c01.avi  1 {UCF[1]}" in told
    assert f"{UCF[0]} 1+1+1, {UCF[1]} 1+0+0" in str(made)
    assert "val.csv repeats test.csv" in told[-1]


def test_missing_and_left_over_videos_are_counted_and_named(tmp_path: Path) -> None:
    root = ucf101(tmp_path)
    (root / "UCF-101" / UCF[1] / "v_b_g08_c01.avi").unlink()
    touch(root, "extra/x.mp4", "extra/y.mp4")
    told = str(index_dataset("ucf101", root))
    assert "missing: the lists name 1 video that the folder lacks (v_b_g08_c01)" in told
    assert "left over: no list names 2 videos of the folder (extra/x.mp4, extra/y.mp4)" in told


def test_hmdb51_leaves_out_what_its_split_leaves_out(tmp_path: Path) -> None:
    made = index_dataset("hmdb51", hmdb51(tmp_path))
    assert rows(made, "train") == [(f"{name}#1.avi", n) for n, name in enumerate(HMDB)]
    assert rows(made, "test") == [(f"{name}#2.avi", n) for n, name in enumerate(HMDB)]
    assert "left over" not in str(made)


def test_kinetics_from_its_csv_files_with_an_unlabelled_test_list(tmp_path: Path) -> None:
    made = index_dataset("k400", k400(tmp_path))
    assert rows(made, "train") == [("-id_0_000005_000015.mp4", 0)]
    assert rows(made, "val") == [("-id_1_000007_000017.mkv", 1)]
    assert rows(made, "test") == [("-id_9_000001_000011.mp4", None)]
    assert json.loads((tmp_path / "classes.json").read_text()) == K400
    assert "missing: the lists name 798 videos" in str(made)


def test_lists_never_replace_the_official_ones(tmp_path: Path) -> None:
    root = k400(tmp_path)
    before = (root / "annotations" / "train.csv").read_bytes()
    with pytest.raises(UsageError, match=r"train\.csv is an official file; name another folder"):
        index_dataset("k400", root, out=root / "annotations")
    assert (root / "annotations" / "train.csv").read_bytes() == before


def test_ssv2_from_its_json_files(tmp_path: Path) -> None:
    made = index_dataset("ssv2", ssv2(tmp_path / "ssv2"), out=tmp_path / "lists")
    assert rows(made, "train") == [("7.webm", 3)]
    assert rows(made, "val") == [("8.webm", 4)]
    assert rows(made, "test") == [("9.webm", None)]
    assert str(tmp_path / "ssv2") in made.files["train"].read_text()  # beside them: absolute paths


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (path,) = root.rglob(name)
        text = path.read_text()
        assert old in text
        put(path, text.replace(old, new, 1))

    return change


def drop(name: str) -> Callable[[Path], None]:
    return lambda root: next(root.rglob(name)).unlink()


@pytest.mark.parametrize(
    ("kind", "make", "change", "says"),
    [
        ("hmdb51", ucf101, None, r"lacks the official files of HMDB51, .*; it has those of UCF101"),
        (
            "ucf101",
            k400,
            None,
            r"lacks the official files of UCF101.*those of Kinetics-400, `k400`",
        ),
        ("ssv2", hmdb51, None, r"lacks .*labels\.json, .*; it has those of HMDB51, `hmdb51`"),
        ("ucf101", ucf101, edit("classInd.txt", "101 ClassDw\n", ""), r"name 100 classes, but UC"),
        (
            "ucf101",
            ucf101,
            edit("classInd.txt", "1 Class", "0 Class"),
            r"line 1: '0 ClassAa' is no",
        ),
        (
            "ucf101",
            ucf101,
            edit("trainlist01.txt", "avi 2", "avi 1"),
            r"line 2: class id 1 is not .*2",
        ),
        ("ucf101", ucf101, edit("trainlist01.txt", "avi 1", "avi 0"), r"line 1: class id 0 is not"),
        (
            "ucf101",
            ucf101,
            edit("testlist01.txt", "ClassAa", "Other"),
            r"line 1: .*no class 'Other'",
        ),
        ("ucf101", ucf101, edit("testlist01.txt", "ClassAa", "../b"), r"line 1: .* leads out of"),
        (
            "ucf101",
            ucf101,
            edit("testlist01.txt", "g01", "g08"),
            r"line 1: v_a_g08_c01 is in .*train",
        ),
        ("ucf101", ucf101, drop("testlist01.txt"), r"no lists of split 1 \(splits found: none\)"),
        ("hmdb51", hmdb51, edit("class_03_*", "avi 2", "avi 3"), r"line 2: .* is not `VIDEO 0`"),
        ("hmdb51", hmdb51, drop("class_03_*.txt"), r"name 50 classes, but HMDB51 has 51"),
        ("k400", k400, edit("validate.csv", "001,", "x,"), r"validate\.csv, line 3: .*no class"),
        (
            "k400",
            k400,
            edit("train.csv", ",5,15", ",,"),
            r"train\.csv, line 2 has no start and end",
        ),
        ("k400", k400, edit("train.csv", ",train", ",dev"), r"line 2: 'dev' is neither train"),
        (
            "ssv2",
            ssv2,
            edit("train.json", "3 times", "z"),
            r"video 1: the labels file has no class",
        ),
        ("ssv2", ssv2, edit("labels.json", '"0"', '"1"'), r"does not number its classes from 0"),
        ("ssv2", ssv2, edit("labels.json", "{", "[{"), r"labels\.json, line 1 is not JSON"),
    ],
)
def test_official_files_that_do_not_fit_are_told_in_one_line(
    tmp_path: Path,
    kind: str,
    make: Callable[..., Path],
    change: Callable[[Path], None] | None,
    says: str,
) -> None:
    root = ucf101(tmp_path, "\n") if make is ucf101 else make(tmp_path)
    if change is not None:
        change(root)
    with pytest.raises(UsageError, match=says) as caught:
        index_dataset(kind, root)
    assert "\n" not in str(caught.value)
    assert not (root / "train.csv").exists()


NAMES = ['it\'s 5, "fine".mp4', "'tis.mp4", "é 日本.avi", "a 3.mp4", "x.mp4 7.mp4", "path.mov"]


def test_class_folders_become_classes_and_a_tenth_is_held_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{n:02d}.mp4" for label in ("b b", "a,a") for n in range(20)))
    made = index_dataset("folder", tmp_path)
    assert (made.classes, len(made.rows["train"]), len(made.rows["val"])) == (["a,a", "b b"], 36, 4)
    assert {label for _, label in made.rows["val"]} == {0, 1}
    assert {path for path, _ in made.rows["val"]}.isdisjoint(p for p, _ in made.rows["train"])
    assert index_dataset("folder", tmp_path).rows == made.rows
    assert "a,a 18+2, b b 18+2" in str(made)


@pytest.mark.parametrize("is_labelled", [True, False])
def test_any_name_comes_back_from_the_list_as_it_is(tmp_path: Path, is_labelled: bool) -> None:
    folders = ("one", "two") if is_labelled else ("",)
    for folder in folders:
        touch(tmp_path / folder, *NAMES, "clip 5/1.jpg")  # the last is a folder of frames
    made = index_dataset("folder", tmp_path, val_share=0)
    found = read_list(made.files["train"])
    expected = {str(tmp_path / folder / n) for folder in folders for n in [*NAMES, "clip 5"]}
    assert {entry.path for entry in found} == expected
    assert {entry.label for entry in found} == ({0, 1} if is_labelled else {None})


def test_folders_train_and_val_are_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "Validation/b/3.mp4", "test/a/4.mp4")
    made = index_dataset("folder", tmp_path)
    assert made.rows == {
        "train": [("train/a/1.mp4", 0), ("train/b/2.mp4", 1)],
        "val": [("Validation/b/3.mp4", 1)],
        "test": [("test/a/4.mp4", 0)],
    }


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a/1.mp4", "b/2.mp4", "3.mp4"], r"3\.mp4 lies beside the class folders, such as a"),
        (["train/a/1.mp4", "val/a/2.mp4", "3.mp4"], r"3\.mp4 lies beside the folders train, val"),
        (["train/a/1.mp4", "train/b/1.mp4", "val/c/2.mp4"], r"there is no class 'c' among those"),
        (["notes.txt"], r"holds no videos, neither files \(3gp avi .*\) nor folders"),
        (["img_1.jpg"], r"holds pictures itself; name the folder above"),
    ],
)
def test_folder_whose_classes_are_unclear_is_refused(
    tmp_path: Path, names: list[str], says: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(UsageError, match=says):
        index_dataset("folder", tmp_path)


def test_links_are_followed_once_and_loops_are_told(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(root, "a/1.mp4", "b/2.mp4")
    touch(elsewhere, "3.mp4")
    (root / "a" / "up").symlink_to(root)
    (root / "0_again").symlink_to(root / "b")
    (root / "c").symlink_to(elsewhere)
    (root / "a" / "gone.mp4").symlink_to(root / "nothing.mp4")
    (root / "a" / "self.mp4").symlink_to(root / "a" / "self.mp4")
    made = index_dataset("folder", root, val_share=0)
    assert made.rows["train"] == [("a/1.mp4", 0), ("b/2.mp4", 1), ("c/3.mp4", 2)]
    told = str(made)
    assert "passed over: a/up is a link to a folder that is listed already" in told
    assert "passed over: 0_again is a link to a folder that is listed already" in told
    assert "passed over: a/gone.mp4 is a broken link" in told
    assert re.search(r"passed over: a/self\.mp4 ", told)


def test_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.mp4", "lost+found/2.mp4")
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    made = index_dataset("folder", tmp_path)
    assert "passed over: lost+found cannot be read (Permission denied)" in str(made)


def test_name_that_no_list_can_hold_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "new\nline.mp4")
    (tmp_path / os.fsdecode(b"\xff.mp4")).touch()
    made = index_dataset("folder", tmp_path, val_share=0)
    assert made.rows["train"] == [("a.mp4", None)]
    assert r"passed over: new\nline.mp4 has a name that is not UTF-8 or has line break" in str(made)
    assert r"passed over: \udcff.mp4 has a name" in str(made)


def test_list_that_was_there_stays_beside_the_new_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    put(tmp_path / "train.csv", "a.mp4\n")
    put(tmp_path / "test.csv", "b.mp4\n")
    told = str(index_dataset("folder", tmp_path, val_share=0))
    assert f"replaced: {tmp_path}/train.csv; what it was is {tmp_path}/train.csv.old" in told
    assert (tmp_path / "train.csv.old").read_text() == "a.mp4\n"
    assert f"left as it was: {tmp_path}/test.csv" in told
    assert "replaced" not in str(index_dataset("folder", tmp_path, val_share=0))


@pytest.mark.parametrize("full_at", [".train.csv.draft", ".classes.json.draft"])
def test_full_disk_is_one_line_and_leaves_the_lists_that_were_there(
    tmp_path: Path, full_at: str
) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    index_dataset("folder", tmp_path, val_share=0)
    before = (tmp_path / "train.csv").read_bytes()
    touch(tmp_path, "c/3.mp4")
    with disk_full_at(full_at), pytest.raises(UsageError, match=r"cannot be written \(No space"):
        index_dataset("folder", tmp_path, val_share=0)
    assert (tmp_path / full_at[1:].removesuffix(".draft")).exists()
    assert not list(tmp_path.glob("*.draft"))
    if "train" in full_at:
        assert (tmp_path / "train.csv").read_bytes() == before
    index_dataset("folder", tmp_path, val_share=0)
    assert len(read_list(tmp_path / "train.csv")) == 3


def test_link_that_leads_around_in_a_circle_of_two_is_listed_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    made = index_dataset("folder", tmp_path, val_share=0)
    assert [name for name, _ in made.rows["train"]] == ["a/1.mp4", "a/to_b/2.mp4"]
