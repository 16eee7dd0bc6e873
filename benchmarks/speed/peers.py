"""Training steps of other projects, taken by their own code from a checkout on this machine.

AdaMAE (https://github.com/wgcban/adamae) and VideoMAE (https://github.com/MCG-NJU/VideoMAE): their
model, loss, optimiser and `train_one_epoch` on an epoch of one batch. They are as they are, apart
from imports that today's packages no longer have, none of which a step uses, and the wait for a GPU
where there is none.
"""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import stream

_UNUSED = (
    "torch._six",
    "scipy",
    "scipy.io",
    "tensorboardX",
    "numpy.lib.function_base",
    "cv2",
    "timm.optim.adafactor",
    "timm.optim.adahessian",
    "timm.optim.adamp",
    "timm.optim.lookahead",
    "timm.optim.nadam",
    "timm.optim.novograd",
    "timm.optim.nvnovograd",
    "timm.optim.radam",
    "timm.optim.rmsprop_tf",
    "timm.optim.sgdp",
)
"""What their files import, often from where it no longer is, and a step never calls."""


class _Unused(ModuleType):
    """Has everything that is imported from it."""

    inf = float("inf")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


class Peer:
    """A checkout of a known project.

    Raises:
        UsageError: for a folder that is none.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        marks = {"AdaMAE": "models/pretrain/vit.py", "VideoMAE": "modeling_pretrain.py"}
        found = [name for name, mark in marks.items() if (self.folder / mark).is_file()]
        if not found:
            raise UsageError(
                f"--peer {folder} is no checkout of {' or '.join(marks)}: it has neither of "
                f"{', '.join(marks.values())}; clone one and give its folder"
            )
        self.name = found[0]

    def step(self, *, size: str, mask_ratio: float, batch: int, seed: int = 0) -> Callable[[], Any]:
        """One optimiser step on a batch of noise, float32, on the CPU."""
        prefix = "msc." if self.name == "AdaMAE" else ""
        model_module = "models.pretrain.vit" if prefix else "modeling_pretrain"
        with _on_cpu(), self.importing() as load:
            models, utils = load(model_module), load(f"{prefix}utils")
            engine, optim = load(f"{prefix}engine_for_pretraining"), load("optim_factory")
            torch.manual_seed(seed)  # their initialisation and masks take the global stream
            builders = {n.split("_")[2]: n for n in vars(models) if n.startswith("pretrain_")}
            if size not in builders:
                raise UsageError(f"{self.name} has no model of size {size!r}; use {[*builders]}")
            own = {"mask_ratio": mask_ratio} if prefix and size == "base" else {}
            if prefix and not own and mask_ratio != 0.9:
                raise UsageError(f"{self.name} has size {size!r} at mask ratio 0.9 only")
            model = getattr(models, builders[size])(decoder_depth=4, **own)
            settings = {"opt": "adamw", "lr": 1.5e-4, "weight_decay": 0.05, "opt_eps": 1e-8}
            optimizer = optim.create_optimizer(Namespace(**settings, opt_betas=None), model)
            scaler = utils.NativeScalerWithGradNormCount()
        scaler.state_dict = lambda: {"scale": 1.0}  # without a GPU, torch's scaler has no scale
        num_tokens = model.encoder.patch_embed.num_patches
        videos = torch.randn(batch, 3, 16, 224, 224, generator=stream(seed, "peer"))
        num_hidden = num_tokens - int(num_tokens * (1 - mask_ratio))
        is_hidden = torch.arange(num_tokens).expand(batch, -1) < num_hidden
        shuffled = is_hidden[:, torch.randperm(num_tokens, generator=stream(seed, "peer", "mask"))]

        def step() -> None:
            with _on_cpu():
                engine.train_one_epoch(
                    model, [(videos, shuffled)], optimizer, torch.device("cpu"), 0, scaler,
                    max_norm=None, patch_size=16, start_steps=0,
                    lr_schedule_values=[1.5e-4], wd_schedule_values=[0.05],
                )  # fmt: skip

        return step

    def clips(self, list_file: Path, *, mask_ratio: float, stride: int) -> Any:
        """Their data set of pre-training: item -> (float pixels `C F H W`, mask)."""
        with _on_cpu(), self.importing() as load:
            return load("datasets").build_pretraining_dataset(
                Namespace(
                    data_path=str(list_file), num_frames=16, sampling_rate=stride, input_size=224,
                    mask_type="tube", window_size=(8, 14, 14), mask_ratio=mask_ratio,
                )
            )  # fmt: skip

    @contextmanager
    def importing(self) -> Iterator[Callable[[str], ModuleType]]:
        """Their modules by name; afterwards those names are free for the next checkout."""
        importlib.import_module("timm.optim")  # whole, before parts of it are replaced
        with patch.dict(sys.modules), patch.object(sys, "path", [str(self.folder), *sys.path]):
            for path in self.folder.iterdir():
                sys.modules.pop(path.stem, None)  # such as another package called datasets
            sys.modules.update({name: _Unused(name) for name in _UNUSED})
            try:
                yield importlib.import_module
            except ImportError as error:
                raise UsageError(f"{self.name} in {self.folder} cannot be used: {error}") from error
            kept = {
                name: module
                for name, module in sys.modules.items()
                if name not in _UNUSED and not self._owns(module)
            }
        sys.modules.update(kept)

    def _owns(self, module: object) -> bool:
        where = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
        return Path(where).is_relative_to(self.folder)


@contextmanager
def _on_cpu() -> Iterator[None]:
    """Without a GPU, without what they print, and without what is said about names that moved."""
    with (
        redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
        patch("torch.cuda.is_available", lambda: False),
        patch("torch.cuda.synchronize", lambda: None),
    ):
        warnings.simplefilter("ignore")
        yield
