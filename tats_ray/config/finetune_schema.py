"""`FinetuneConfig` and its branches: what decides a fine-tuning run.

Sources in brackets: [S] the paper's supplement, [A] AdaMAE's published code, [A15] to [A17] the
ambiguities that `docs/fidelity.md` explains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tats_ray.config.schema import (
    CheckpointConfig,
    ClusterConfig,
    DataConfig,
    LogConfig,
    ModelConfig,
    RunConfig,
)
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
    """Which labelled videos, and which frames of one make a clip."""

    _prefix = "data."
    train_list: str = ""
    """List of training videos with class ids; `tats finetune` takes it from the data's folder."""
    val_list: str = ""
    """List of validation videos with class ids."""
    root: str = ""
    """Folder that relative paths in the lists start from; default: the list's own folder."""
    num_classes: Count = 0
    """Classes; 0 is the highest id of the training list and one."""
    num_frames: Count = 0
    """Frames per clip; 0 as in pre-training."""
    image_size: Count = 0
    """Height and width of a clip, pixels; 0 as in pre-training."""
    stride: Count = 0
    """Video frames from one clip frame to the next; 0 as in pre-training."""
    sampling: Literal["dense", "segments"] = "dense"
    """segments takes a frame from each equal part of the video, as for Something-Something [A]."""
    min_frames: AtLeastOne = 2
    """Videos of fewer frames count as unreadable."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """auto is decord where it is frame-exact, PyAV elsewhere."""
    num_workers: Count = 4
    """Loader processes per learner; 0 decodes in the learner itself."""
    cache_mb: Count = 0
    """Decoded videos kept in memory, per loader process; for small data sets."""
    max_bad_share: Share = 0.01
    """The run stops when more than this share of clips could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig(ConfigBase):
    """The encoder, as the checkpoint has it; what is set here must agree with it."""

    _prefix = "model."
    size: Literal["", "tiny", "small", "base", "large", "huge"] = ""
    """Named size; empty is the checkpoint's."""
    depth: Count = 0
    """Blocks; 0 is the checkpoint's."""
    tubelet: Count = 0
    """Frames per token; 0 is the checkpoint's."""
    patch: Count = 0
    """Pixels per token along each side; 0 is the checkpoint's."""
    pos_embed: Literal["", "sincos_1d", "sincos_3d"] = ""
    """Position table; empty is the checkpoint's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig(ConfigBase):
    """What is done to a training clip; the same for all of its frames."""

    _prefix = "augment."
    rand_ops: Count = 4
    """Operations of RandAugment; 0 leaves it out [A15]."""
    rand_magnitude: Annotated[float, Range("inside [0, 10]", lambda value: 0 <= value <= 10)] = 7.0
    """Their strength, 0 to 10; the supplement's table says 9, published code runs 7 [A15]."""
    rand_std: NotNegative = 0.5
    """Deviation of the strength from one operation to the next [S table 4]."""
    min_area: ShareAboveZero = 0.08
    """Smallest share of the picture that a crop keeps; 1 keeps all of it, squeezed square [A]."""
    flip: Share = 0.5
    """Chance that a clip is mirrored; 0 where classes know left from right [A]."""
    erase: Share = 0.25
    """Chance that a box of the clip is replaced by noise [A]."""
    mixup: NotNegative = 0.8
    """Mixup's alpha; 0 leaves it out [S table 4]."""
    cutmix: NotNegative = 1.0
    """CutMix's alpha; 0 leaves it out [S table 4]."""
    cut_axes: Literal["picture", "time_height"] = "picture"
    """What CutMix cuts; time_height is what timm's does to clips, and so AdaMAE's code [A]."""
    switch: Share = 0.5
    """Chance of CutMix where there is mixup, too [A]."""
    mix: Share = 1.0
    """Share of the batches that are mixed at all [A]."""
    label_smoothing: Share = 0.1
    """Share of each target that is spread over all classes [S table 4]."""
    repeats: AtLeastOne = 1
    """Differently cut copies of a video in a batch; the scripts use 1 [A]."""

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
    """Learning rate for a total batch of 256; the real one scales with the total batch [S]."""
    min_lr: NotNegative = 1e-6
    """Where the cosine ends, scaled alike [A]."""
    warmup_epochs: NotNegative = 5
    """Epochs of linear rise from 0 [S table 4]."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW betas [S table 4]."""
    weight_decay: float = 0.05
    """AdamW weight decay; not on biases and norms [S table 4]."""
    layer_decay: ShareAboveZero = 0.75
    """Factor on the learning rate from each block to the one below it [S table 4]."""
    drop_path: ShareBelowOne = 0.1
    """Chance that the last block is skipped for a clip; the others' rise to it [S table 4]."""
    head_scale: NotNegative = 0.001
    """Factor on the classifier's first weights [A]."""
    clip_grad: NotNegative = 0.0
    """Largest gradient norm; 0 does not clip [A]."""
    ema_decay: ShareBelowOne = 0.0
    """Decay of a moving average of the weights, which is then what is tested; 0 keeps none [A]."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; losses stay float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig(ConfigBase):
    """What is measured while it trains: the middle of each validation video, centred."""

    _prefix = "eval."
    every_epochs: Count = 5
    """Epochs between measurements, 0 for none; the last epoch is always measured."""
    num_videos: Count = 0
    """Videos used, from the start of the list; 0 takes all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsConfig(ConfigBase):
    """Views of a video that `tats test` averages."""

    _prefix = "test."
    clips: AtLeastOne = 2
    """Along the time; 5 for Kinetics-400, else 2 [S table 4]."""
    crops: AtLeastOne = 3
    """Along the longer side [S table 4]."""

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        views = self.clips * self.crops
        # Refused here, before the training that the test would follow.
        require(views <= MAX_VIEWS, "test.clips times test.crops", views, f"at most {MAX_VIEWS}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig(ConfigBase):
    """Everything that decides a fine-tuning run."""

    name: str = ""
    """Name of the run and its folder; default: the config file's name."""
    seed: int = 0
    """Root of every random stream."""
    start: str = ""
    """Checkpoint whose encoder it starts from; given on the command line."""
    from_scratch: bool = False
    """Start from random weights in the checkpoint's shape, as the supervised baseline."""
    new_head: bool = False
    """Discard the classifier of a checkpoint that was already fine-tuned."""
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
