"""Who may import whom: floors, one door per dependency, and a training path without extras."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tats_ray.config.plugins import SAMPLERS

ROOT = Path(__file__).parents[1]

FLOORS = {
    "core": 0,
    "ops": 1,
    "config": 1,
    "models": 2,
    "data": 2,
    "view": 2,
    "algorithms": 3,
    "checkpoints": 3,
    "training": 4,
    "evaluation": 4,
    "envs": 5,
    "runtime": 5,
    "runs": 6,
    "benchmarks": 7,
    "sweeps": 7,
    "cluster": 7,
    "cli": 8,
    "__main__": 9,
}
"""A module imports from lower floors and its own folder; rooms of one floor do not know each other.
`tats_ray/__init__.py` imports the environments' ids and nothing else of ours."""

DOORS = {
    "ray": ("runtime/", "benchmarks/"),
    "decord": ("data/readers/jumping.py", "benchmarks/"),
    "torchcodec": ("data/readers/jumping.py",),
    "av": ("data/decode.py", "data/encode.py", "data/cache/jpeg_frames.py"),
    "ale_py": ("data/atari/console.py",),
    "timm": ("models/",),
    "triton": ("models/path_kernel.py",),
    "torchvision": ("data/augment.py",),
    "yaml": ("config/",),
    "pydantic": ("config/",),
    "tyro": ("cli/",),
    "gymnasium": ("envs/", "training/environments.py", "benchmarks/env.py"),
    "stable_baselines3": (),
    "torchrl": (),
    "rich": ("view/",),
    "matplotlib": ("view/",),
    "tensorboard": ("view/",),
    "wandb": ("view/trackers.py",),
    "mlflow": ("view/trackers.py",),
    "safetensors": (
        "checkpoints/format.py",
        "evaluation/feature_cache.py",
        "checkpoints/weight_files.py",
    ),
    "transformers": (),
    "jaxtyping": ("core/arrays.py",),
    "beartype": (),
    "optuna": ("runtime/driver/optuna_search.py",),
}
"""Where each dependency may enter."""


def sources() -> dict[str, Path]:
    """Import name -> file of every module, envs/ under the name it is imported by."""
    found = {}
    beside = [(f"tats_ray.{name}", ROOT / name) for name in ("envs", "benchmarks")]
    for top, folder in [("tats_ray", ROOT / "tats_ray"), *beside]:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([top, *(part for part in parts if part != "__init__")])
            found[name] = path
    return found


SOURCES = sources()


def imports(name: str) -> Iterator[str]:
    """Full names that a module imports, wherever in the file, type checking included."""
    path = SOURCES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                is_module = whole in SOURCES or not base.startswith("tats_ray")
                yield whole if is_module else base


def room(name: str) -> str:
    """Folder (or top-level module) of `tats_ray` that a module is in; empty for the package."""
    return f"{name}.".split(".")[1]


def test_walk_finds_the_library() -> None:
    assert {room(name) for name in SOURCES} == {"", *FLOORS}
    assert len(SOURCES) > 40
    assert "tats_ray.core.grid" in set(imports("tats_ray.models.mae"))
    assert {"torch", "torch.Tensor"} <= set(imports("tats_ray.models.mae"))


@pytest.mark.parametrize("name", SOURCES)
def test_module_imports_only_lower_floors_and_its_own_folder(name: str) -> None:
    own = room(name)
    ours = {target for target in imports(name) if target.split(".")[0] in ("tats_ray", "envs")}
    if not own:
        assert ours == {"tats_ray.envs"}
        return
    breaches = {
        target
        for target in ours
        if room(target) and room(target) != own and FLOORS[room(target)] >= FLOORS[own]
    }
    assert breaches == set()
    assert not any(target.split(".")[0] == "envs" for target in ours)  # tats_ray.envs is its name


@pytest.mark.parametrize("dependency", DOORS)
def test_dependency_enters_only_through_its_door(dependency: str) -> None:
    used_by = {
        SOURCES[name].relative_to(ROOT).as_posix().removeprefix("tats_ray/")
        for name in SOURCES
        for target in imports(name)
        # torch.utils.tensorboard is tensorboard by another name
        if f"{target}.".startswith((f"{dependency}.", f"torch.utils.{dependency}."))
    }
    outside = {path for path in used_by if not path.startswith(DOORS[dependency])}
    assert outside == set()


def test_folders_and_names_stay_findable() -> None:
    """Nobody has to open two files of one name, or search a folder of dozens."""
    files = [path for path in SOURCES.values() if path.name != "__init__.py"]
    per_folder = Counter(path.parent.relative_to(ROOT).as_posix() for path in files)
    assert {folder: n for folder, n in per_folder.items() if n > 15} == {}
    product = [path.name for path in files if "benchmarks" not in path.parts]
    assert {name for name, n in Counter(product).items() if n > 1} == set()
    classes = Counter(
        node.name
        for path in files
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert len(classes) > 100
    assert {name for name, n in classes.items() if n > 1} == set()


@pytest.mark.parametrize("name", [n for n in SOURCES if room(n) != "benchmarks"])
def test_files_have_400_lines_at_most_and_functions_60(name: str) -> None:
    text = SOURCES[name].read_text()
    assert len(text.splitlines()) <= 400
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {function for function, n in lines.items() if n > 60} == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: {t for t in imports(name) if t in SOURCES} - {name} for name in SOURCES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in SOURCES:
        visit(name, ())


def test_only_models_tell_policies_apart_by_their_class() -> None:
    """Elsewhere `is_learned` does, or `find_sampler` of a configuration."""
    asking = {
        name
        for name, path in SOURCES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "isinstance"
        and "SamplerPolicy" in ast.unparse(node.args[1])
    }
    assert {room(name) for name in asking} == {"models"}


def names_compared(source: str) -> list[str]:
    """Comparisons and cases that name a sampler of this package."""
    kinds = (ast.Compare, ast.MatchValue)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [
        ast.unparse(node)
        for node in nodes
        if any(isinstance(n, ast.Constant) and n.value in SAMPLERS for n in ast.walk(node))
    ]


def test_comparison_with_a_samplers_name_is_found() -> None:
    source = 'a = name == "tats"\nb = name in ("x", "tube")\nc = {"tats": 1}\nd = name == "x"'
    assert names_compared(source) == ["name == 'tats'", "name in ('x', 'tube')"]


def test_only_the_registry_knows_samplers_by_name() -> None:
    """What differs between samplers is a field of its entry, so that plug-ins can differ, too."""
    found = {name: names_compared(path.read_text()) for name, path in SOURCES.items()}
    allowed = ("tats_ray.models.samplers.", "tats_ray.config.")
    assert {n: f for n, f in found.items() if f and not n.startswith(allowed)} == {}


BARE = """
import importlib
import pkgutil
import sys

for name in (
    "ray decord av ale_py gymnasium pydantic tyro yaml rich matplotlib tensorboard jaxtyping "
    "beartype"
).split():
    sys.modules[name] = None

import numpy as np
import torch

import tats_ray

rooms = ["core", "ops", "models", "algorithms"]
modules = [
    f"tats_ray.{room}.{module.name}"
    for room in rooms
    for module in pkgutil.iter_modules(importlib.import_module(f"tats_ray.{room}").__path__)
]
modules += ["tats_ray.config.schema", "tats_ray.evaluation.mask_evaluator"]
modules += [
    f"tats_ray.training.{name}" for name in ("pretrain_loop", "mae_learner", "policy_learner")
]
for module in modules:
    importlib.import_module(module)

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.schema import LoopConfig, ModelConfig, OptimConfig, SamplerConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.training.pretrain_loop import PretrainLoop, Stage
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import LocalPolicyClient, PolicyLearner
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.zoo import build_mae, build_policy
from tats_ray.ops.rewards import clip_return, token_error

torch.set_num_threads(1)
grid = TokenGrid(num_frames=4, image_size=16, patch=8)
model = ModelConfig(size="tiny", patch=8)
learner = MAELearner(
    build_mae(model, grid, seed=0),
    OptimConfig(batch_size=2, warmup_epochs=0),
    steps_per_epoch=2,
    total_steps=2,
    global_batch=2,
)


class Env:
    # What the loop uses of an environment, without Gymnasium.
    def reset(self, *, options):
        self.clips = options["clips"]
        return learner.embed(self.clips), {}

    def step(self, actions):
        step = learner.learn(self.clips, actions)
        reward = token_error(step.error, actions)
        ended = np.ones(2, dtype=bool)
        info = {"token_reward": reward, "training_step": step}
        return None, clip_return(reward, actions), ended, ~ended, info


class Batch:
    pixels = torch.randint(256, (2, *grid.clip_shape), dtype=torch.uint8)
    num_replaced = 0
    motion = None
    unreadable = {}


class Hooks:
    def on_step(self, loop, metrics, batches):
        print(loop.at.step, metrics["mae/loss"] > 0, metrics["policy/loss"] != 0)

    def on_epoch(self, loop):
        pass


acting, owned = (build_policy(SamplerConfig(), model, grid, seed=0) for _ in range(2))
PretrainLoop(
    LoopConfig(epochs=1, mae_only_epochs=0),
    seed=0,
    slots=[0],
    batches=lambda epoch, first: iter([Batch(), Batch()][first:]),
    learner=learner,
    warmup=Stage(FixedPolicy(grid), Env(), 4),
    main=Stage(acting, Env(), 4),
    client=LocalPolicyClient(PolicyLearner(owned, PPOConfig().build(owned), seed=0)),
    hooks=Hooks(),
).run()
"""


def test_training_needs_neither_cluster_nor_video_nor_configuration_libraries() -> None:
    """What a GPU image without these packages can run: two whole steps, policy update included."""
    done = subprocess.run(
        [sys.executable, "-c", BARE], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    # Before them, a library of timm's may say on stdout what it misses.
    assert done.stdout.splitlines()[-2:] == ["1 True True", "2 True True"], done.stderr


def test_help_comes_without_torch_and_ray() -> None:
    code = """
import sys
from tats_ray.__main__ import main
try:
    main(["probe", "--help"])
finally:
    print("torch" in sys.modules, "ray" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.stdout.endswith("False False\n"), done.stderr


def test_light_actors_start_without_torch() -> None:
    """Every run starts these processes; the controller of Ray Train unpickles `causes` and a log.

    Measured: with torch, each holds up every start by one to four seconds.
    """
    rooms = (
        "actors.rollout_buffer",
        "actors.ticket_desk",
        "actors.weight_store",
        "actors.run_log",
        "actors.peers",
        "driver.causes",
    )
    code = f"""
import sys
for room in {rooms}:
    __import__(f"tats_ray.runtime.{{room}}")
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.stdout == "False\n", done.stderr
