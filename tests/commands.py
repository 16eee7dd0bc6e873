"""The `tats` command inside a test's own process."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from tats_ray.__main__ import main


def tats(*words: str | Path) -> None:
    main([str(word) for word in words])


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that `tats words...` ends with; no Ray may be started for it.

    Whether another test of this process has one running makes no difference.
    """

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("Ray was started before the command was refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: False)
        patch.setattr(ray, "init", start)
        with pytest.raises(SystemExit) as ended:
            tats(*words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("tats: ")
    assert error.count("\n") == 1
    return error
