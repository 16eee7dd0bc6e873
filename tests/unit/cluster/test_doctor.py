"""`tats doctor`: what it says where something is wrong."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from tats_ray.cluster import doctor as room
from tats_ray.cluster import machine
from tats_ray.cluster.doctor import check_lock, check_storage, doctor
from tats_ray.core.errors import TatsError, UsageError
from tats_ray.runtime.cluster.auth import find_auth_token, require_auth_token

LOCK = Path(__file__).parents[3] / "requirements.lock"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no word about tokens in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".ray").mkdir()
    return tmp_path


def write_token(home: Path, mode: int, value: str = "secret-of-64") -> Path:
    path = home / ".ray" / "auth_token"
    path.write_text(value)
    path.chmod(mode)
    return path


def test_table_says_what_works_and_helps_where_it_does_not(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor(storage=str(home), lock=LOCK)
    said = capsys.readouterr().out
    for what in ("torch", "gpu", "decoder pyav", "decoder decord", "ffmpeg bundles", "ray", "disk"):
        assert f"\n  {what} " in said
    assert "no auth token yet" in said
    assert "auth token: a cluster needs one: ray get-auth-token --generate" in said


def test_node_without_a_token_fails_and_one_with_a_private_token_passes(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "machine_checks", list)
    monkeypatch.setattr(room.socket, "gethostbyname", lambda name: "192.0.2.7")
    with pytest.raises(TatsError, match="auth token of node"):
        doctor(is_node=True)
    write_token(home, 0o644)
    with pytest.raises(TatsError, match="auth token of node"):
        doctor(is_node=True)
    assert "chmod 600" in capsys.readouterr().out
    write_token(home, 0o600)
    doctor(is_node=True)
    said = capsys.readouterr().out
    assert "secret" not in said
    assert "192.0.2.7" in said


def test_a_check_that_breaks_is_one_row_and_fails(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> room.Finding:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(machine, "_torch", broken)
    with pytest.raises(TatsError, match="doctor: torch failed"):
        doctor()
    assert "ImportError: libcudart.so.13" in capsys.readouterr().out


def test_lock_of_other_versions_fails(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"ray=={metadata.version('ray')}\ntorch==1.0.0\n")
    ray, torch = check_lock(lock)
    assert ray.verdict == "ok"
    assert torch.verdict == "FAIL"
    assert "1.0.0" in torch.says
    assert f"pip install -r {lock}" in torch.help
    with pytest.raises(UsageError, match="No such file"):
        list(check_lock(tmp_path / "none"))


def test_storage_that_cannot_be_written_fails(tmp_path: Path) -> None:
    assert check_storage(tmp_path).verdict == "ok"
    assert list(tmp_path.iterdir()) == []
    assert check_storage(tmp_path / "missing").verdict == "FAIL"


@pytest.mark.parametrize(
    ("name", "folder", "says"),
    [
        ("HOME", "nowhere", "nowhere: No such file or directory"),
        ("RAY_TMPDIR", "nowhere", "nowhere: No such file or directory"),
        ("RAY_TMPDIR", "a" * 60, "is too long for the names of sockets"),
    ],
)
def test_folders_in_which_ray_cannot_start_fail(
    name: str, folder: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ("a" * 60)).mkdir()
    assert dict(machine.machine_checks())["ray's folders"]().verdict == "ok"
    monkeypatch.setenv(name, str(tmp_path / folder))
    found = dict(machine.machine_checks())["ray's folders"]()
    assert found.verdict == "FAIL"
    assert says in found.says
    assert name in found.help


def test_token_is_found_in_rays_own_order_and_never_shown(home: Path, tmp_path: Path) -> None:
    assert find_auth_token({}) is None
    path = write_token(home, 0o600)
    found = find_auth_token({})
    assert found is not None
    assert (found.value, found.source, found.is_private) == ("secret-of-64", str(path), True)
    assert "secret" not in repr(found)
    other = tmp_path / "other"
    other.write_text("named\n")
    named = find_auth_token({"RAY_AUTH_TOKEN_PATH": str(other)})
    assert named is not None
    assert named.value == "named"
    first = find_auth_token({"RAY_AUTH_TOKEN_PATH": str(other), "RAY_AUTH_TOKEN": "first"})
    assert first is not None
    assert first.value == "first"
    other.write_text("")
    with pytest.raises(UsageError, match="is empty"):
        find_auth_token({"RAY_AUTH_TOKEN_PATH": str(other)})


def test_missing_token_is_answered_with_the_one_command_that_makes_it(home: Path) -> None:
    with pytest.raises(UsageError, match="ray get-auth-token --generate"):
        require_auth_token({})
    assert require_auth_token({"RAY_AUTH_MODE": "disabled"}) is None
