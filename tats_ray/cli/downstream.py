"""Commands that use an encoder: features of videos, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tats_ray.cli.command import (
    MaybeDataArg,
    MaybeNumbers,
    MaybePath,
    MaybeText,
    PathArg,
    PlainCommand,
)
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.core.errors import UsageError


@dataclass(frozen=True)
class Extract(PlainCommand):
    """Write the features that a frozen encoder computes for a list of videos."""

    checkpoint: PathArg
    """Any checkpoint that `tats ckpt inspect` can read."""
    list: PathArg
    """List of videos, with or without labels."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("features.safetensors")
    """File to write."""
    root: MaybePath = None
    """Folder that relative paths in the list start from. Default: the list's own folder."""
    pool: Literal["mean", "tokens"] = "mean"
    """mean gives one vector per view, tokens gives one per token."""
    views: str = "1x1"
    """CLIPSxCROPS per video: clips along time, crops along the longer side."""
    sampling: Literal["dense", "segments"] = "dense"
    """dense has a fixed stride, segments takes a frame from each equal part of the video."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)

    def carry_out(self) -> None:
        from tats_ray.data.views import ViewPlan
        from tats_ray.evaluation.extract import extract

        out = extract(
            self.checkpoint,
            self.list,
            self.out,
            plan=ViewPlan.parse(self.views, self.sampling),
            options=self.encoder,
            root=self.root,
            pool=self.pool,
        )
        print(out)


_TRAINED = ("linear", "attentive")
_HEEDED_BY = {
    "preset": ("linear",),
    **dict.fromkeys(("epochs", "batch_size", "lrs", "weight_decays"), _TRAINED),
    **dict.fromkeys(("val_views", "untrained"), (*_TRAINED, "knn")),
    **dict.fromkeys(("k", "temperature"), ("knn",)),
}
"""Of the flags that not every kind of probe reads, which kinds do."""


@dataclass(frozen=True)
class ProbeCommand(PlainCommand):
    """Train a classifier on the features of a frozen encoder and report its accuracy."""

    kind: tyro.conf.Positional[Literal["linear", "attentive", "knn", "state"]]
    """linear reads mean-pooled tokens, attentive reads all of them, knn trains nothing. state reads
    true states, such as those of `tats data atari`, in both ways, beside an untrained encoder."""
    checkpoint: PathArg
    """Any checkpoint that `tats ckpt inspect` can read."""
    data: MaybeDataArg = None
    """Folder with train.csv and val.csv. Alternatively name both lists with --train and --val."""
    train: MaybePath = None
    """List of labelled videos for training."""
    val: MaybePath = None
    """List of labelled videos for validation."""
    root: MaybePath = None
    """Folder that relative paths in the lists start from. Default: each list's own folder."""
    preset: Literal["sgd", "ft-like"] = "sgd"
    """Linear probe: sgd is batch norm with SGD, ft-like is layer norm with AdamW."""
    train_views: str = "1x1"
    """CLIPSxCROPS per training video. Each epoch draws one of these views. For state: of all
    videos, each view an example."""
    val_views: str = "2x3"
    """CLIPSxCROPS per validation video, averaged. Kinetics-400 uses 5x3."""
    sampling: Literal["dense", "segments"] = "dense"
    """dense has a fixed stride, segments takes a frame from each equal part of the video."""
    epochs: int = 0
    """Passes over the features. 0 takes the preset's value."""
    batch_size: int = 0
    """Videos per training step. 0 takes the preset's value, 256."""
    lrs: MaybeNumbers = ()
    """Learning rates to try, for a batch of 256. The default is the preset's grid."""
    weight_decays: MaybeNumbers = ()
    """Weight decays to try with each learning rate. The default is the preset's grid."""
    k: int = 20
    """Number of neighbours for knn."""
    change: int = 0
    """For state: read how much each state changes in this many frames after the middle one."""
    temperature: float = 0.07
    """Temperature of the neighbours' weights."""
    seed: int = 0
    """Seed of the heads, their batches, and the held-out part of the training list."""
    untrained: bool = False
    """Probe an untrained encoder of the same shape, which is the baseline to beat."""
    out: MaybePath = None
    """Folder for results and cached features. The default is the run folder."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)

    def carry_out(self) -> None:
        from tats_ray.data.views import ViewPlan
        from tats_ray.evaluation.labelled_lists import find_lists
        from tats_ray.evaluation.probe import ProbeRequest, probe
        from tats_ray.evaluation.probe_protocols import recipe

        self._refuse_ignored()
        train_list, val_list = find_lists(self.data, self.train, self.val)
        if self.kind == "state":
            self._probe_states(train_list, val_list)
            return
        heads = None
        if self.kind != "knn":
            heads = recipe(
                self.kind,
                preset=self.preset,
                epochs=self.epochs,
                batch_size=self.batch_size,
                lrs=self.lrs,
                weight_decays=self.weight_decays,
            )
        probe(
            ProbeRequest(
                checkpoint=self.checkpoint,
                train_list=train_list,
                val_list=val_list,
                root=self.root,
                recipe=heads,
                train_views=ViewPlan.parse(self.train_views, self.sampling),
                val_views=ViewPlan.parse(self.val_views, self.sampling),
                k=self.k,
                temperature=self.temperature,
                seed=self.seed,
                is_untrained=self.untrained,
                encoder=self.encoder,
                out=self.out,
            )
        )

    def _refuse_ignored(self) -> None:
        """A flag that the probe would not heed was meant for another."""
        for flag, kinds in _HEEDED_BY.items():
            (default,) = (f.default for f in fields(self) if f.name == flag)
            if self.kind not in kinds and getattr(self, flag) != default:
                raise UsageError(
                    f"--{flag} {getattr(self, flag)} is for {' and '.join(kinds)} probes, not for "
                    f"{self.kind}; leave it out"
                )

    def _probe_states(self, train_list: Path, val_list: Path) -> None:
        from tats_ray.data.views import ViewPlan
        from tats_ray.evaluation.states.state_probe import StateRequest, probe_states

        probe_states(
            StateRequest(
                checkpoint=self.checkpoint,
                train_list=train_list,
                val_list=val_list,
                root=self.root,
                views=ViewPlan.parse(self.train_views, self.sampling),
                change=self.change,
                seed=self.seed,
                encoder=self.encoder,
                out=self.out,
            )
        )


@dataclass(frozen=True)
class Test(PlainCommand):
    """Test a fine-tuned classifier on several views of every video, with averaged scores."""

    checkpoint: PathArg
    """A fine-tuned run folder, or any other checkpoint with a classifier head."""
    data: MaybeDataArg = None
    """Folder with test.csv or val.csv. Alternatively name the list with --list."""
    list: MaybePath = None
    """List of labelled videos."""
    root: MaybePath = None
    """Folder that relative paths in the list start from. Default: the run's, or the list's own."""
    views: MaybeText = ""
    """CLIPSxCROPS per video. Default: the run's setting, or 2x3. Kinetics-400 uses 5x3."""
    sampling: Annotated[
        Literal["dense", "segments"] | None,
        tyro.conf.arg(metavar="{dense,segments}", help_behavior_hint=""),
    ] = None
    """segments is for Something-Something. Default: the run's setting, or dense."""
    out: MaybePath = None
    """Folder for results. The default is the run folder."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)

    def carry_out(self) -> None:
        from tats_ray.evaluation.multi_view import TestRequest, multi_view_test

        multi_view_test(
            TestRequest(
                checkpoint=self.checkpoint,
                data=self.data,
                list=self.list,
                root=self.root,
                views=self.views,
                sampling=self.sampling,
                encoder=self.encoder,
                out=self.out,
            )
        )
