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
    ShareBetween,
    require,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(ConfigBase):
    """Which videos, and how a clip is cut from one."""

    _prefix = "data."
    train_list: str = ""
    """List of training videos: a path per line, then a label where there is one."""
    val_list: str = ""
    """List of validation videos; without one, nothing is validated."""
    root: str = ""
    """Folder that relative paths in the lists start from; default: the list's own folder."""
    num_classes: int = 0
    """Labels must be below this; 0 does not check."""
    num_frames: int = 16
    """Frames per clip [S]."""
    image_size: int = 224
    """Height and width of a clip, pixels [S]."""
    stride: AtLeastOne = 2
    """Video frames from one clip frame to the next; 4 for Kinetics-400, else 2 [S]."""
    min_frames: AtLeastOne = 2
    """Videos of fewer frames count as unreadable; ones shorter than a clip repeat their last."""
    augment: Literal["multi_scale_crop", "random_resized_crop", "center"] = "multi_scale_crop"
    """Training crop; random_resized_crop is area [0.5, 1] and a flip [S text versus table, A14]."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """auto is decord where it is frame-exact, PyAV elsewhere."""
    num_workers: Count = 4
    """Loader processes per learner; 0 decodes in the learner itself."""
    cache_mb: Count = 0
    """Decoded videos kept in memory, per loader process; for small data sets."""
    max_bad_share: Share = 0.01
    """The run stops when more than this share of clips could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(ConfigBase):
    """The masked autoencoder."""

    _prefix = "model."
    size: Literal["tiny", "small", "base", "large", "huge"] = "base"
    """Named size; base is the paper's [S table 5]."""
    depth: Count = 0
    """Encoder blocks; 0 takes the size's own."""
    decoder_depth: Count = 0
    """Decoder blocks; 0 takes the size's own, which is 4 for base [R]."""
    tubelet: int = 2
    """Frames per token [S table 5]."""
    patch: int = 16
    """Pixels per token along each side [S table 5]."""
    pos_embed: Literal["sincos_1d", "sincos_3d"] = "sincos_1d"
    """Position table; sincos_1d is the paper family's, sincos_3d lets small runs learn."""
    head_init: Literal["xavier", "zero"] = "xavier"
    """Weights of the decoder's head; zero starts at the mean and leaves the plateau sooner."""
    normalize_targets: bool = True
    """Predict pixels normalised in each patch; False predicts them as they are, 0 to 1 [A]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig(ConfigBase):
    """What chooses the visible tokens."""

    _prefix = "sampler."
    name: str = "tats"
    """tats, adamae, random, tube, frame, multi_block, oracle, or `module:Class` from another
    package. Only tats and adamae learn. The oracle shows true motion where it is known."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of a sampler from another package, by name."""
    mask_ratio: ShareBetween = 0.9
    """Share of tokens hidden; 0.85, 0.90 or 0.95 in the paper [S]."""
    trajectory_attention: bool = True
    """False gives `tats` AdaMAE's attention block instead (ablation) [R]."""
    num_blocks: AtLeastOne = 1
    """Trajectory attention blocks [R]."""
    num_heads: Count = 0
    """Heads of the sampler; 0 is the encoder's for tats, 8 for adamae [A5]."""
    qkv_bias: bool = True
    """Biases in the trajectory attention's projections [A5]."""
    project_values: bool = True
    """False is Motionformer's published slip: stage 2 mixes unprojected trajectories [A5]."""
    pos_embed: Literal["learned", "sincos_1d", "sincos_3d"] = "learned"
    """The sampler's own position code; learned starts at zero, the others are fixed [A20]."""
    actor_init: Literal["zero", "xavier"] = "zero"
    """zero starts exactly uniform [A1]."""
    whiten_tokens: bool = False
    """The sampler sees its tokens whitened by running statistics, and learns in fewer steps."""
    temperature: Positive = 1.0
    """Softmax temperature [R][S]."""
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
    """Gymnasium id of the environment; `module:Namespace/Name-vN`."""
    reward: str = ""
    """Reward function, by its name in `ops/rewards.py`; default: the algorithm's own, token_error
    where it scores hidden tokens, negative_clip_error where it scores visible ones [A3]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlgorithmConfig(ConfigBase):
    """What every policy algorithm has. `name` picks the subclass."""

    _prefix = "algorithm."
    name: str = ""
    """ppo, a2c, reinforce, grpo, rloo, or `module:Class` of a config in another package."""
    lr: Positive = 1.5e-6
    """Learning rate of the sampler; absolute, not scaled by the batch [S, A8]."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW betas [S]."""
    weight_decay: float = 0.05
    """AdamW weight decay [A21]."""

    @property
    def default_reward(self) -> str:
        """The reward that it is meant to be paid with, where `env.reward` names none."""
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
        raise UsageError(f"algorithm.name {self.name!r} builds no algorithm; use ppo, for one")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig(ConfigBase):
    """Who trains when [method section 7.7]."""

    _prefix = "loop."
    epochs: AtLeastOne = 200
    """Passes over the training list."""
    mae_only_epochs: Count = 10
    """m_o: epochs with uniformly random masks, before the sampler takes part [R][S]."""
    mae_steps_per_update: AtLeastOne = 1
    """k: MAE steps whose rollouts one policy update takes [R][S]."""
    max_staleness: Count = 0
    """Policy updates that may be under way while the MAE goes on. 0 is the paper's recipe. With s,
    masks are drawn by the policy of exactly s updates ago, so that the run stays reproducible."""
    source: Literal["learner", "workers"] = "learner"
    """Whose rollouts the policy learns from: the MAE learners' own training steps, or those of
    rollout workers, which hold frozen copies of the MAE and so leave the MAE learners to train."""
    publish_every: AtLeastOne = 1
    """With workers: policy updates between two copies of the MAE that they judge with."""
    rollout_fraction: ShareAboveZero = 1.0
    """Share of each batch's clips that the policy learns from; the MAE learns from all."""
    warmup_mask: Literal["random", "tube", "learned"] = "random"
    """Masks of the MAE-only epochs; learned asks the untrained sampler [A1]."""
    mae_step_every_batch: bool = True
    """False steps the MAE once per k batches, on their mean gradient [A9]."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the networks; losses, softmax and log-probabilities stay float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig(ConfigBase):
    """The autoencoder's optimiser: AdamW, warm-up, cosine [method section 8]."""

    _prefix = "optim."
    batch_size: AtLeastOne = 32
    """Clips per learner and step [S]."""
    base_lr: Positive = 1.5e-4
    """Learning rate for a total batch of 256; the real one scales with the total batch [S]."""
    min_lr: NotNegative = 1e-5
    """Where the cosine ends, scaled alike [A]."""
    warmup_epochs: NotNegative = 40
    """Epochs of linear rise from 0 [R][S]."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW betas [R][S]."""
    weight_decay: float = 0.05
    """AdamW weight decay; not on biases, norms, position codes [A]."""
    clip_grad: NotNegative = 0.0
    """Largest gradient norm; 0 does not clip [A]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig(ConfigBase):
    """What is measured on the validation list, under masks that never change."""

    _prefix = "eval."
    every_epochs: Count = 5
    """Epochs between measurements, 0 for none; the last epoch is always measured."""
    num_clips: AtLeastOne = 64
    """Validation clips used, from the start of the list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig(ConfigBase):
    """Where a run lives, and what it keeps."""

    _prefix = "checkpoint."
    folder: str = "runs"
    """Runs go to `<folder>/<name>`. On several nodes: a folder that all of them share."""
    every_epochs: AtLeastOne = 5
    """Epochs between checkpoints; the last epoch always has one [R]."""
    keep_last: AtLeastOne = 2
    """Checkpoints kept; older ones are removed."""
    keep_best: bool = True
    """Keep the one of the lowest `eval/error` too, while fine-tuning that of the highest
    `val/top1`; `checkpoints/best` names it."""
    retry_s: NotNegative = 300.0
    """Seconds that a storage may refuse writes before the run ends; at most half of
    cluster.timeout_s is used, since the other learners wait meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig(ConfigBase):
    """What a person sees while it runs."""

    _prefix = "log."
    every_steps: AtLeastOne = 10
    """Steps between metric records; each covers the steps since the last."""
    mode: Literal["auto", "board", "plain", "quiet"] = "auto"
    """auto is the live board on a terminal and plain lines elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig(ConfigBase):
    """Which machines do the work."""

    _prefix = "cluster."
    address: str = ""
    """Ray cluster to join; default: RAY_ADDRESS, or a private cluster on this machine."""
    num_workers: AtLeastOne = 1
    """MAE learners; each is a Ray Train worker with a batch of its own."""
    min_workers: int = 0
    """Fewest MAE learners that go on while nodes come and go (Ray Train's elastic scaling); 0 is
    num_workers. Fewer share the batches of num_workers, so that every step stays what it is."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """fsdp spreads the autoencoder's weights, gradients and moments over the MAE learners, for
    sizes large and huge; ddp keeps all of them in each. The numbers are the same."""
    use_gpu: bool = False
    """One GPU per MAE learner, and one for the policy learner's share."""
    cpus_per_worker: float = 1
    """CPUs that Ray reserves for each MAE learner, and for each rollout worker."""
    policy_gpus: float = 0.0
    """GPUs reserved for the policy learner; 0 puts it on the CPU."""
    policy_place: Literal["actor", "learner"] = "actor"
    """Where the policy learns: in an actor of its own, or inside the one MAE learner, where its
    rollouts never leave the device and nothing overlaps."""
    rollout_workers: AtLeastOne = 1
    """Rollout workers, where loop.source is workers. How many there are changes no result."""
    rollout_gpus: float = 0.0
    """GPUs reserved for each rollout worker; 0 puts it on the CPU."""
    threads: int = 0
    """Torch threads per learner; 0 divides the cores of each node among the MAE learners on it."""
    max_failures: int = 3
    """Deaths of processes and nodes that the run survives; each one restarts the learners."""
    buffer_mb: AtLeastOne = 1024
    """Most that waiting rollouts may hold; pushing waits when it is reached."""
    timeout_s: Positive = 600.0
    """Longest silence of a peer before the run gives up on it and says so."""
    nodes_timeout_s: NotNegative = 1200.0
    """Longest wait for nodes that a cluster's autoscaler has to start first."""

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        require(
            0 <= self.min_workers <= self.num_workers,
            "cluster.min_workers",
            self.min_workers,
            f"inside [0, cluster.num_workers {self.num_workers}]",
        )

    @property
    def fewest_workers(self) -> int:
        """MAE learners without which a run does not start."""
        return self.min_workers or self.num_workers

    @property
    def is_elastic(self) -> bool:
        """Whether the number of MAE learners may change during the run."""
        return self.fewest_workers < self.num_workers


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(ConfigBase):
    """Everything that decides a pre-training run."""

    name: str = ""
    """Name of the run and its folder; default: the config file's name."""
    seed: int = 0
    """Root of every random stream."""
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
