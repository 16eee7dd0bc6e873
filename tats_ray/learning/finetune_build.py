"""From a fine-tuning configuration to the parts of a run: the same parts in one process or many."""

from __future__ import annotations

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.schema import DataConfig, ModelConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.data.labelled import Augmentation, LabelledClips
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.sampler import ClipSampler
from tats_ray.data.views import ViewDataset, ViewPlan
from tats_ray.learning.build import ClipLoader
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.zoo import build_classifier


def token_grid_of(config: FinetuneConfig) -> TokenGrid:
    """Of a resolved configuration: one that leaves nothing to the checkpoint."""
    return TokenGrid(
        num_frames=config.data.num_frames,
        image_size=config.data.image_size,
        tubelet=config.model.tubelet,
        patch=config.model.patch,
    )


def model_config(config: FinetuneConfig) -> ModelConfig:
    """The encoder in pre-training's terms; of a resolved configuration."""
    model = config.model
    assert model.size
    assert model.pos_embed
    return ModelConfig(
        size=model.size,
        depth=model.depth,
        tubelet=model.tubelet,
        patch=model.patch,
        pos_embed=model.pos_embed,
    )


def clip_config(config: FinetuneConfig) -> DataConfig:
    """Clips in pre-training's terms; of a resolved configuration."""
    data = config.data
    return DataConfig(
        num_classes=data.num_classes,
        num_frames=data.num_frames,
        image_size=data.image_size,
        stride=data.stride,
        min_frames=data.min_frames,
        decoder=data.decoder,
        max_bad_share=data.max_bad_share,
    )


def new_classifier(config: FinetuneConfig) -> VideoClassifier:
    """Freshly drawn weights."""
    return build_classifier(
        model_config(config),
        token_grid_of(config),
        config.data.num_classes,
        drop_path=config.optim.drop_path,
        head_scale=config.optim.head_scale,
        seed=config.seed,
    )


def training_clips(config: FinetuneConfig, entries: list[VideoEntry]) -> LabelledClips:
    data, how = config.data, config.augment
    return LabelledClips(
        entries=entries,
        augmentation=Augmentation(
            rand_ops=how.rand_ops,
            rand_magnitude=how.rand_magnitude,
            rand_std=how.rand_std,
            min_area=how.min_area,
            flip=how.flip,
            erase=how.erase,
        ),
        num_frames=data.num_frames,
        image_size=data.image_size,
        stride=data.stride,
        sampling=data.sampling,
        min_frames=data.min_frames,
        seed=config.seed,
        backend=data.decoder,
        cache_mb=data.cache_mb,
    )


def finetune_batches(
    config: FinetuneConfig, entries: list[VideoEntry], *, rank: int = 0, world_size: int = 1
) -> ClipLoader:
    """One rank's batches; a video's copies follow each other at the distance of the videos."""
    sampler = ClipSampler(
        num_clips=len(entries),
        batch_size=config.videos_per_step,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        repeats=config.augment.repeats,
    )
    return ClipLoader(
        training_clips(config, entries),
        sampler,
        num_workers=config.data.num_workers,
        cluster=config.cluster,
    )


def view_dataset(config: FinetuneConfig, entries: list[VideoEntry], plan: ViewPlan) -> ViewDataset:
    """The same views of every video every time."""
    data = config.data
    return ViewDataset(
        entries,
        plan,
        num_frames=data.num_frames,
        image_size=data.image_size,
        stride=data.stride,
        min_frames=data.min_frames,
        backend=data.decoder,
    )
