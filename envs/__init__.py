"""Token selection as Gymnasium tasks. The folder is envs/, the import name is `tats_ray.envs`.

Importing this registers the ids and nothing more; torch is imported when an environment is made.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ == "envs":
    # `import envs` in a checkout is the same package as `tats_ray.envs`, not a second copy.
    sys.modules["envs"] = import_module("tats_ray.envs")
else:
    import gymnasium

    TOKEN_SELECTION = "TATS/TokenSelection-v0"
    SEQUENTIAL_TOKEN_SELECTION = "TATS/SequentialTokenSelection-v0"

    _WHERE = {
        "TokenSelectionEnv": "single",
        "SequentialTokenSelectionEnv": "single",
        "TokenSelectionVectorEnv": "token_selection",
        "SequentialTokenSelectionVectorEnv": "sequential",
    }

    for _id, _prefix in (
        (TOKEN_SELECTION, "TokenSelection"),
        (SEQUENTIAL_TOKEN_SELECTION, "SequentialTokenSelection"),
    ):
        if _id not in gymnasium.registry:
            gymnasium.register(
                _id,
                entry_point=f"tats_ray.envs.single:{_prefix}Env",
                vector_entry_point=f"tats_ray.envs:{_prefix}VectorEnv",
            )

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)

    if TYPE_CHECKING:
        from tats_ray.envs.sequential import SequentialTokenSelectionVectorEnv
        from tats_ray.envs.single import SequentialTokenSelectionEnv, TokenSelectionEnv
        from tats_ray.envs.token_selection import TokenSelectionVectorEnv

    __all__ = [
        "SEQUENTIAL_TOKEN_SELECTION",
        "TOKEN_SELECTION",
        "SequentialTokenSelectionEnv",
        "SequentialTokenSelectionVectorEnv",
        "TokenSelectionEnv",
        "TokenSelectionVectorEnv",
    ]
