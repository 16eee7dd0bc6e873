"""What can go wrong, as types. Each message is one line: the value, the place and the way out."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A question with the nearest known name, to stand behind an unknown one; empty if none is."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{match[0]}?" if match else ""


class TatsError(Exception):
    """Base of all errors that a user can act on."""


class UsageError(TatsError, ValueError):
    """Something in the request is wrong: a field, a path, a size. Exit code 2."""


class CheckpointError(UsageError):
    """A checkpoint that is missing, damaged, or of another model."""


class VideoError(TatsError):
    """A video file that cannot be read as asked. `path` names it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str]]:
        # Errors cross process borders, and the default pickles the joined message only.
        return type(self), (self.path, self.reason)


class NonFiniteError(TatsError):
    """A loss or a logit that is NaN or infinite.

    Args:
        is_own: whether it was met in this process. Others that learn together with one that has
            met it stop in the same step.
    """

    def __init__(self, message: str, *, is_own: bool = True) -> None:
        super().__init__(message)
        self.is_own = is_own
        self.version = 0
        """Policy update in which it was met, where it was in one."""
        self.rollouts: tuple[tuple[int, int, int], ...] = ()
        """Those that it can come from: place of its MAE step in the update, MAE step, slot."""


class StaleError(TatsError):
    """A message from an incarnation of the run that was replaced by a newer one."""


class PeerFailedError(TatsError):
    """Another part of the run ended with an error, which is named."""


class PeerLostError(PeerFailedError):
    """Others of a group cannot be reached any more. What became of them is known elsewhere."""


class StorageError(TatsError):
    """Storage that refused writes for longer than `checkpoint.retry_s`."""
