"""Commands that use an encoder: features of videos, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Extract(PlainCommand):
    """Write what a frozen encoder says about the videos of a list to a safetensors file."""

    checkpoint: PathArg
    """Anything that `tats ckpt inspect` knows."""
    list: PathArg
    """List of videos, with labels or without."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("features.safetensors")
    """File to write."""
    root: MaybePath = None
    """Folder that relative paths in the list start from; default: the list's own folder."""
    pool: Literal["mean", "tokens"] = "mean"
    """One vector per view, or one per token."""
    views: str = "1x1"
    """CLIPSxCROPS of every video: along the time, and along the longer side."""
    sampling: Literal["dense", "segments"] = "dense"
    """segments takes a frame from each equal part of the video."""
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


@dataclass(frozen=True)
class ProbeCommand(PlainCommand):
    """Measure what the features of a frozen encoder are worth for telling classes apart."""

    kind: tyro.conf.Positional[Literal["linear", "attentive", "knn"]]
    """linear reads mean-pooled tokens, attentive all of them with one query; knn learns nothing."""
    checkpoint: PathArg
    """Anything that `tats ckpt inspect` knows."""
    data: MaybeDataArg = None
    """Folder with train.csv and val.csv; or name both with --train and --val."""
    train: MaybePath = None
    """List of labelled videos to learn from."""
    val: MaybePath = None
    """List of labelled videos to measure on."""
    root: MaybePath = None
    """Folder that relative paths in the lists start from; default: each list's own folder."""
    preset: Literal["sgd", "ft-like"] = "sgd"
    """Of linear: batch norm and SGD, or layer norm and AdamW as in fine-tuning."""
    train_views: str = "1x1"
    """CLIPSxCROPS of every training video; each epoch draws one of them."""
    val_views: str = "2x3"
    """CLIPSxCROPS of every validation video, averaged; 5x3 for Kinetics-400."""
    sampling: Literal["dense", "segments"] = "dense"
    """segments takes a frame from each equal part of the video."""
    epochs: int = 0
    """Passes over the features; 0 is the preset's."""
    batch_size: int = 0
    """Videos per training step; 0 is the preset's 256."""
    lrs: MaybeNumbers = ()
    """Learning rates to try, for a batch of 256; default: the preset's."""
    weight_decays: MaybeNumbers = ()
    """Weight decays to try with each of them; default: the preset's."""
    k: int = 20
    """Neighbours of knn."""
    temperature: float = 0.07
    """Of the neighbours' weights."""
    seed: int = 0
    """Of the heads, their batches, and the held-out part of the training list."""
    untrained: bool = False
    """Probe freshly drawn weights in the checkpoint's shape: the baseline to beat."""
    out: MaybePath = None
    """Folder for results and cached features; default: the run's."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)

    def carry_out(self) -> None:
        from tats_ray.data.views import ViewPlan
        from tats_ray.evaluation.labelled_lists import find_lists
        from tats_ray.evaluation.probe import ProbeRequest, probe
        from tats_ray.evaluation.probe_protocols import recipe

        train_list, val_list = find_lists(self.data, self.train, self.val)
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


@dataclass(frozen=True)
class Test(PlainCommand):
    """Measure a fine-tuned classifier: several views of every video, their scores averaged."""

    checkpoint: PathArg
    """Fine-tuned: a run folder, or anything else with a head that `tats ckpt inspect` knows."""
    data: MaybeDataArg = None
    """Folder with test.csv or val.csv; or name the list with --list."""
    list: MaybePath = None
    """List of labelled videos."""
    root: MaybePath = None
    """Folder that relative paths in it start from; default: the run's own, else the list's."""
    views: MaybeText = ""
    """CLIPSxCROPS; default: the run's own, else 2x3. Kinetics-400 takes 5x3."""
    sampling: Annotated[
        Literal["dense", "segments"] | None,
        tyro.conf.arg(metavar="{dense,segments}", help_behavior_hint=""),
    ] = None
    """segments is for Something-Something; default: the run's own, else dense."""
    out: MaybePath = None
    """Folder for results; default: the run's."""
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
