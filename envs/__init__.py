"""Token selection as a Gymnasium task. The folder is envs/, the import name is `tats_ray.envs`."""

if __name__ == "envs":
    # `import envs` in a checkout is the same package as `tats_ray.envs`, not a second copy.
    import sys

    import tats_ray.envs

    sys.modules["envs"] = tats_ray.envs
else:
    import gymnasium
    from tats_ray.envs.token_selection import TokenSelectionVectorEnv

    TOKEN_SELECTION = "TATS/TokenSelection-v0"

    if TOKEN_SELECTION not in gymnasium.registry:
        gymnasium.register(
            TOKEN_SELECTION,
            vector_entry_point="tats_ray.envs.token_selection:TokenSelectionVectorEnv",
        )

    __all__ = ["TOKEN_SELECTION", "TokenSelectionVectorEnv"]
