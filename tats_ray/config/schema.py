"""`RunConfig` and its branches.

Declared once; read from YAML, from the command line and from a sweep by the same strict reader
(`config.load`). A field's docstring is its help text. Defaults are the paper's, with the source
in brackets: [S] the paper's supplement, [R] the official README, [A] AdaMAE's published code,
[A1]-[A24] the ambiguities of the method, whose resolutions `docs/fidelity.md` explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from tats_ray.config.cluster_schema import ClusterConfig
from tats_ray.config.plugins import SAMPLERS, check_name
from tats_ray.core.errors import UsageError
from tats_ray.core.protocols import ConfigBase
from tats_ray.core.ranges import (
    AtLeastOne,
    Count,
    NotNegative,
    Positive,
    Share,
    ShareAboveZero,
    ShareBelowOne,
    ShareBetween,
    require,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(ConfigBase):
    """Which videos to use, and how to cut clips from them."""

    _prefix = "data."
    train_list: str = ""
    """List of training videos: one path per line, optionally followed by a label."""
    val_list: str = ""
    """List of validation videos. Without one, nothing is validated."""
    root: str = ""
    """Folder that relative paths in the lists start from. Default: the list's own folder."""
    num_classes: int = 0
    """Class ids must be below this number. 0 skips the check."""
    num_frames: int = 16
    """Frames per clip [S]."""
    image_size: int = 224
    """Height and width of a clip, pixels [S]."""
    stride: AtLeastOne = 2
    """Video frames between two frames of a clip. 4 for Kinetics-400, otherwise 2 [S]."""
    min_frames: AtLeastOne = 2
    """Videos with fewer frames are unreadable. A clip beyond the end repeats the last frame."""
    augment: Literal["multi_scale_crop", "random_resized_crop", "center"] = "multi_scale_crop"
    """Training crop. random_resized_crop: area [0.5, 1] and flips [S text versus table, A14]."""
    decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto"
    """auto uses the fastest reader that proved exact on the file. Other names skip that check."""
    reader: Literal["local", "ray"] = "local"
    """Where training clips are decoded: on the learner's node, or by actors on any node of the
    cluster, on its `decode` nodes where it has some. The clips are the same."""
    num_workers: Count = 4
    """Loader processes, or decode actors, per learner. With 0 the learner decodes by itself."""
    cache_mb: Count = 0
    """Memory for decoded videos in each loader process, MB. Useful for small data sets."""
    cache: str = ""
    """Folder of `tats data cache`. Training clips come from its frames, not from the videos."""
    clips_per_open: AtLeastOne = 1
    """Clips of a batch from each opened video. An epoch then opens one in so many videos."""
    max_bad_share: Share = 0.01
    """The run stops if more than this share of clips could not be read."""

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        is_enough = self.reader == "local" or self.num_workers > 0
        require(is_enough, "data.num_workers", self.num_workers, "above 0 with data.reader ray")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(ConfigBase):
    """The masked autoencoder."""

    _prefix = "model."
    size: Literal["tiny", "small", "base", "large", "huge"] = "base"
    """Named size. The paper uses base [S table 5]."""
    depth: Count = 0
    """Encoder blocks. 0 uses the depth of the named size."""
    decoder_depth: Count = 0
    """Decoder blocks. 0 uses the depth of the named size, which is 4 for base [R]."""
    tubelet: int = 2
    """Frames per token [S table 5]."""
    patch: int = 16
    """Pixels per token along each side [S table 5]."""
    pos_embed: Literal["sincos_1d", "sincos_3d"] = "sincos_1d"
    """Position table. The paper family uses sincos_1d. sincos_3d lets small runs learn."""
    head_init: Literal["xavier", "zero"] = "xavier"
    """Initial weights of the decoder's head. zero leaves the plateau of the mean sooner."""
    normalize_targets: bool = True
    """Predict pixels normalised within each patch. False predicts pixels from 0 to 1 [A]."""
    decode_share: ShareAboveZero = 1.0
    """Share of the hidden tokens that a training step decodes, drawn anew for each clip. Only these
    are learned from and earn a reward. 1 is the paper's recipe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig(ConfigBase):
    """What chooses the visible tokens."""

    _prefix = "sampler."
    name: str = "tats"
    """tats, adamae, random, tube, frame, multi_block, oracle, or `module:Class` from another
    package. Only tats and adamae learn. oracle shows the true motion where it is known."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of a sampler from another package, by name."""
    mask_ratio: ShareBetween = 0.9
    """Share of hidden tokens. The paper uses 0.85, 0.90 or 0.95 [S]."""
    trajectory_attention: bool = True
    """False gives `tats` AdaMAE's attention block instead (ablation) [R]."""
    num_blocks: AtLeastOne = 1
    """Trajectory attention blocks [R]."""
    num_heads: Count = 0
    """Attention heads of the sampler. 0 is the encoder's number for tats, 8 for adamae [A5]."""
    qkv_bias: bool = True
    """Use biases in the projections of trajectory attention [A5]."""
    project_values: bool = True
    """False repeats Motionformer's published slip: stage 2 mixes unprojected values [A5]."""
    recompute: Literal["auto", "on", "off"] = "auto"
    """Compute trajectories again in the backward pass instead of keeping them: less memory, more
    time. auto decides by the memory of the device, and the plan says what it chose."""
    pos_embed: Literal["learned", "sincos_1d", "sincos_3d"] = "learned"
    """Position code of the sampler. learned starts at zero, and the others are fixed [A20]."""
    actor_init: Literal["zero", "xavier"] = "zero"
    """zero starts with an exactly uniform policy [A1]."""
    whiten_tokens: bool = False
    """Whiten the sampler's tokens with running statistics. It then learns in fewer steps."""
    temperature: Positive = 1.0
    """Softmax temperature [R][S]."""
    uniform_share: ShareBelowOne = 0.0
    """Probability that a visible token is drawn uniformly and not by the sampler, so that some of
    what is hard stays hidden. The mixture is the policy that is scored, so ratios stay exact."""
    value_shares_trunk: bool = False
    """The value head reads the sampler's features instead of the tokens [A6]."""

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        check_name("sampler.name", self.name, SAMPLERS)
        is_allowed = not self.options or self.name not in SAMPLERS
        require(is_allowed, "sampler.options", self.options, f"empty for sampler {self.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvConfig(ConfigBase):
    """The task that the policy is trained on."""

    _prefix = "env."
    id: str = "tats_ray.envs:TATS/TokenSelection-v0"
    """Gymnasium id of the environment, as `module:Namespace/Name-vN`."""
    reward: str = ""
    """Reward function, named as in `ops/rewards.py`. Default: token_error for algorithms that
    score hidden tokens, negative_clip_error for those that score visible ones [A3]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlgorithmConfig(ConfigBase):
    """What every policy algorithm has. `name` picks the subclass."""

    _prefix = "algorithm."
    name: str = ""
    """ppo, a2c, reinforce, grpo or rloo, or `module:Class` for a config in another package."""
    lr: Positive = 1.5e-6
    """Learning rate of the sampler. It does not scale with the batch [S, A8]."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW betas [S]."""
    weight_decay: float = 0.05
    """AdamW weight decay [A21]."""

    @property
    def default_reward(self) -> str:
        """The reward that suits the algorithm, used where `env.reward` is empty."""
        return "token_error"

    @property
    def masks_per_clip(self) -> int:
        """Draws for each clip of a batch; they follow each other in its rollouts."""
        return 1

    def build(self, policy: Any) -> Any:
        """The `Algorithm` for this policy.

        Raises:
            UsageError: on the base class, which names no algorithm.
        """
        raise UsageError(
            f"algorithm.name {self.name!r} builds no algorithm; use ppo, or give your class the "
            "method build(policy)"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig(ConfigBase):
    """Who trains when [method section 7.7]."""

    _prefix = "loop."
    epochs: AtLeastOne = 200
    """Passes over the training list."""
    mae_only_epochs: Count = 10
    """m_o: epochs with uniformly random masks before the sampler takes part [R][S]."""
    ramp_in_epochs: Count = 0
    """Epochs after the MAE-only ones over which the share of steps with the sampler's masks grows
    towards 1. The other steps have the masks of the MAE-only epochs, and nothing to learn from."""
    ramp_out_epochs: Count = 0
    """Last epochs, over which that share falls again towards 0."""
    mae_steps_per_update: AtLeastOne = 1
    """k: MAE steps whose rollouts go into one policy update [R][S]."""
    max_staleness: Count = 0
    """Policy updates that may run while the MAE continues. 0 is the paper's recipe. With s, the
    policy of exactly s updates ago draws the masks, so the run stays reproducible."""
    source: Literal["learner", "workers"] = "learner"
    """Source of the policy's rollouts: the training steps of the MAE learners, or rollout workers,
    which hold frozen copies of the MAE and so leave the MAE learners free to train."""
    publish_every: AtLeastOne = 1
    """With workers: policy updates between two copies of the MAE that score their rollouts."""
    rollout_fraction: ShareAboveZero = 1.0
    """Share of each batch's clips that the policy learns from. The MAE learns from all."""
    warmup_mask: Literal["random", "tube", "learned"] = "random"
    """Masks of the MAE-only epochs. learned uses the untrained sampler [A1]."""
    mae_step_every_batch: bool = True
    """False takes one MAE step per k batches, on their mean gradient [A9]."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Precision of the networks. Losses, softmax and log-probabilities stay in float32. auto is
    bfloat16 where the device that learns gains by it, and the plan says which."""
    compile: Literal["off", "blocks", "step"] = "off"
    """Have torch compile what learns: one block of each kind, or the whole pass, on a GPU as CUDA
    graphs. The first step then takes minutes longer. Results differ by rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig(ConfigBase):
    """The autoencoder's optimiser: AdamW, warm-up, cosine [method section 8]."""

    _prefix = "optim."
    batch_size: AtLeastOne = 32
    """Clips per learner and step [S]."""
    base_lr: Positive = 1.5e-4
    """Learning rate for a total batch of 256. The actual rate scales with the batch [S]."""
    min_lr: NotNegative = 1e-5
    """Final rate of the cosine schedule, scaled like base_lr [A]."""
    warmup_epochs: NotNegative = 40
    """Epochs of linear warm-up from 0 [R][S]."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW betas [R][S]."""
    weight_decay: float = 0.05
    """AdamW weight decay. It does not apply to biases, norms and position codes [A]."""
    clip_grad: NotNegative = 0.0
    """Maximum gradient norm. 0 disables clipping [A]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig(ConfigBase):
    """What is measured on the validation list, under masks that never change."""

    _prefix = "eval."
    every_epochs: Count = 5
    """Epochs between measurements. 0 measures only the last epoch, which is always measured."""
    num_clips: AtLeastOne = 64
    """Number of validation clips, taken from the start of the list."""
    moving_share: ShareAboveZero = 0.1
    """A token moves when at least this share of its pixels belongs to something that moves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig(ConfigBase):
    """Where a run is saved, and what it keeps."""

    _prefix = "checkpoint."
    folder: str = "runs"
    """Runs are saved in `<folder>/<name>`. All nodes of a cluster must share this folder."""
    every_epochs: AtLeastOne = 5
    """Epochs between checkpoints. The last epoch always has one [R]."""
    keep_last: AtLeastOne = 2
    """Number of checkpoints to keep. Older ones are removed."""
    keep_best: bool = True
    """Also keep the checkpoint with the lowest `eval/error`, or with the highest `val/top1` in
    fine-tuning. `checkpoints/best` names it."""
    retry_s: NotNegative = 300.0
    """Seconds for which the run retries storage that refuses writes. At most half of
    cluster.timeout_s is used, because the other learners wait meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig(ConfigBase):
    """What a run shows while it trains."""

    _prefix = "log."
    every_steps: AtLeastOne = 10
    """Steps between metric records. Each record covers the steps since the last one."""
    mode: Literal["auto", "board", "plain", "quiet"] = "auto"
    """auto shows the live board on a terminal and prints plain lines elsewhere."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where the metrics also go. wandb and mlflow need packages of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(ConfigBase):
    """Everything that decides a pre-training run."""

    name: str = ""
    """Name of the run and its folder. Default: the config file's name."""
    seed: int = 0
    """Root of every random stream."""
    init: str = ""
    """Checkpoint whose weights the run starts from: of any project, or a run folder's newest."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    @property
    def reward(self) -> str:
        """Name of the reward function: `env.reward`, or the algorithm's own."""
        return self.env.reward or self.algorithm.default_reward

    @property
    def num_rollout_workers(self) -> int:
        """Rollout workers that the run starts."""
        return self.cluster.rollout_workers if self.loop.source == "workers" else 0

    @property
    def num_decoders(self) -> int:
        """Decode actors that the run starts."""
        each = self.data.num_workers if self.data.reader == "ray" else 0
        return each * self.cluster.num_workers

    @property
    def rollouts_per_update(self) -> int:
        """Rollouts that a policy update takes: one of every learner's step, or as many."""
        return self.loop.mae_steps_per_update * self.cluster.num_workers

    @property
    def clips_per_rollout(self) -> int:
        """Distinct clips of a rollout."""
        return math.ceil(self.loop.rollout_fraction * self.clips_per_step)

    @property
    def clips_per_step(self) -> int:
        """Distinct clips of a learner's batch, each repeated for `algorithm.masks_per_clip` masks.

        Raises:
            UsageError: where the batch holds no whole number of groups.
        """
        size, masks = self.optim.batch_size, self.algorithm.masks_per_clip
        if size % masks:
            near = -(-size // masks) * masks
            raise UsageError(
                f"optim.batch_size {size} is not a multiple of the {masks} masks per clip of "
                f"algorithm {self.algorithm.name}; try --optim.batch_size {near}"
            )
        return size // masks
