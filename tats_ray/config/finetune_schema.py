"""`FinetuneConfig` and its branches: what decides a fine-tuning run.

Sources in brackets: [S] the paper's supplement, [A] AdaMAE's published code, [A15] to [A17] the
ambiguities that `docs/fidelity.md` explains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tats_ray.config.cluster_schema import ClusterConfig
from tats_ray.config.schema import CheckpointConfig, DataConfig, LogConfig, ModelConfig, RunConfig
from tats_ray.core.grid import MAX_VIEWS, TokenGrid
from tats_ray.core.protocols import ConfigBase
from tats_ray.core.ranges import (
    AtLeastOne,
    Count,
    NotNegative,
    Positive,
    Range,
    Share,
    ShareAboveZero,
    ShareBelowOne,
    require,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledDataConfig(ConfigBase):
    """Which labelled videos to use, and which frames of a video make a clip."""

    _prefix = "data."
    train_list: str = ""
    """List of training videos with class ids. `tats finetune` takes it from the data folder."""
    val_list: str = ""
    """List of validation videos with class ids."""
    root: str = ""
    """Folder that relative paths in the lists start from. Default: the list's own folder."""
    num_classes: Count = 0
    """Number of classes. 0 means the highest id of the training list plus one."""
    num_frames: Count = 0
    """Frames per clip. 0 means the value from pre-training."""
    image_size: Count = 0
    """Height and width of a clip, pixels. 0 means the value from pre-training."""
    stride: Count = 0
    """Video frames between two frames of a clip. 0 means the value from pre-training."""
    sampling: Literal["dense", "segments"] = "dense"
    """segments takes one frame per equal part of the video, as for Something-Something [A]."""
    min_frames: AtLeastOne = 2
    """Videos with fewer frames count as unreadable."""
    decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto"
    """auto uses the fastest reader that proved exact on the file. Other names skip that check."""
    num_workers: Count = 4
    """Loader processes per learner. With 0 the learner decodes by itself."""
    cache_mb: Count = 0
    """Memory for decoded videos in each loader process, MB. Useful for small data sets."""
    cache: str = ""
    """Folder of `tats data cache`. Training clips come from its frames, not from the videos."""
    max_bad_share: Share = 0.01
    """The run stops if more than this share of clips could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig(ConfigBase):
    """The encoder of the checkpoint. Values set here must agree with it."""

    _prefix = "model."
    size: Literal["", "tiny", "small", "base", "large", "huge"] = ""
    """Named size. Empty means the checkpoint's."""
    depth: Count = 0
    """Encoder blocks. 0 means the checkpoint's."""
    tubelet: Count = 0
    """Frames per token. 0 means the checkpoint's."""
    patch: Count = 0
    """Pixels per token along each side. 0 means the checkpoint's."""
    pos_embed: Literal["", "sincos_1d", "sincos_3d"] = ""
    """Position table. Empty means the checkpoint's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig(ConfigBase):
    """Augmentation of a training clip. All frames of a clip get the same."""

    _prefix = "augment."
    rand_ops: Count = 4
    """Number of RandAugment operations. 0 disables RandAugment [A15]."""
    rand_magnitude: Annotated[float, Range("inside [0, 10]", lambda value: 0 <= value <= 10)] = 7.0
    """Strength of the operations, 0 to 10. 9 in the supplement, 7 in the published code [A15]."""
    rand_std: NotNegative = 0.5
    """Standard deviation of the strength between operations [S table 4]."""
    min_area: ShareAboveZero = 0.08
    """Smallest share of the picture that a crop keeps. 1 squeezes all of it square [A]."""
    flip: Share = 0.5
    """Probability of mirroring a clip. Use 0 if classes distinguish left from right [A]."""
    erase: Share = 0.25
    """Probability of replacing a box of the clip by noise [A]."""
    mixup: NotNegative = 0.8
    """Alpha of mixup. 0 disables it [S table 4]."""
    cutmix: NotNegative = 1.0
    """Alpha of CutMix. 0 disables it [S table 4]."""
    cut_axes: Literal["picture", "time_height"] = "picture"
    """What CutMix cuts. timm, and therefore AdaMAE's code, cuts time_height from clips [A]."""
    switch: Share = 0.5
    """Probability of CutMix if mixup is also on [A]."""
    mix: Share = 1.0
    """Share of batches that are mixed at all [A]."""
    label_smoothing: Share = 0.1
    """Share of each target that is spread over all classes [S table 4]."""
    repeats: AtLeastOne = 1
    """Differently augmented copies of each video in a batch. The scripts use 1 [A]."""

    @property
    def is_mixed(self) -> bool:
        return self.mix > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneOptimConfig(ConfigBase):
    """AdamW with layer decay, warm-up and cosine [method section 9]."""

    _prefix = "optim."
    epochs: AtLeastOne = 100
    """Passes over the training list [S; A16]."""
    batch_size: AtLeastOne = 8
    """Clips per learner and step [S table 4]."""
    base_lr: Positive = 1e-3
    """Learning rate for a total batch of 256. The actual rate scales with the batch [S]."""
    min_lr: NotNegative = 1e-6
    """Final rate of the cosine schedule, scaled like base_lr [A]."""
    warmup_epochs: NotNegative = 5
    """Epochs of linear warm-up from 0 [S table 4]."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW betas [S table 4]."""
    weight_decay: float = 0.05
    """AdamW weight decay. It does not apply to biases and norms [S table 4]."""
    layer_decay: ShareAboveZero = 0.75
    """Factor on the learning rate from each block to the one below it [S table 4]."""
    drop_path: ShareBelowOne = 0.1
    """Probability of skipping the last block for a clip, lower for earlier blocks [S table 4]."""
    head_scale: NotNegative = 0.001
    """Factor on the initial weights of the classifier [A]."""
    clip_grad: NotNegative = 0.0
    """Maximum gradient norm. 0 disables clipping [A]."""
    ema_decay: ShareBelowOne = 0.0
    """Decay of a moving average of the weights, which is then tested. 0 disables it [A]."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network. Losses stay in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig(ConfigBase):
    """Validation during training, on the centred middle clip of each validation video."""

    _prefix = "eval."
    every_epochs: Count = 5
    """Epochs between measurements. 0 measures only the last epoch, which is always measured."""
    num_videos: Count = 0
    """Number of validation videos, taken from the start of the list. 0 uses all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsConfig(ConfigBase):
    """Views of a video that `tats test` averages."""

    _prefix = "test."
    clips: AtLeastOne = 2
    """Clips along the time axis. 5 for Kinetics-400, otherwise 2 [S table 4]."""
    crops: AtLeastOne = 3
    """Crops along the longer side [S table 4]."""

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        views = self.clips * self.crops
        # Refused here, before the training that the test would follow.
        require(views <= MAX_VIEWS, "test.clips times test.crops", views, f"at most {MAX_VIEWS}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig(ConfigBase):
    """Everything that decides a fine-tuning run."""

    name: str = ""
    """Name of the run and its folder. Default: the config file's name."""
    seed: int = 0
    """Root of every random stream."""
    start: str = ""
    """Checkpoint whose encoder the run starts from. The command line gives it."""
    from_scratch: bool = False
    """Start from random weights of the checkpoint's shape, as the supervised baseline."""
    new_head: bool = False
    """Drop the classifier of a checkpoint that was already fine-tuned."""
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    eval: ValidationConfig = field(default_factory=ValidationConfig)
    test: ViewsConfig = field(default_factory=ViewsConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        size, repeats = self.optim.batch_size, self.augment.repeats
        require(
            size % repeats == 0, "optim.batch_size", size, f"a multiple of the {repeats} repeats"
        )
        if self.augment.is_mixed:
            require(size % 2 == 0, "optim.batch_size", size, "even, since clips are mixed in pairs")
        require(
            self.cluster.policy_gpus == 0,
            "cluster.policy_gpus",
            self.cluster.policy_gpus,
            "0: fine-tuning has no policy",
        )
        require(
            self.cluster.sharding == "ddp",
            "cluster.sharding",
            self.cluster.sharding,
            "ddp: in fine-tuning each learner holds the whole classifier",
        )

    @property
    def videos_per_step(self) -> int:
        """Distinct videos of a learner's batch."""
        return self.optim.batch_size // self.augment.repeats

    @property
    def num_rollout_workers(self) -> int:
        """None: no policy learns."""
        return 0

    @property
    def num_decoders(self) -> int:
        """None: every learner decodes on its own node."""
        return 0


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


Clustered = RunConfig | FinetuneConfig
"""A run of whatever kind: the machines that do the work, and where its checkpoints go."""


def storage_retry_s(config: Clustered) -> float:
    """How long a storage may refuse: the other learners must not give up on the one that waits."""
    return min(config.checkpoint.retry_s, config.cluster.timeout_s / 2)
