"""What can be typed behind `tats`, and its help texts. tyro enters the project here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Pretrain:
    """Train a masked autoencoder and its token sampler.

    Any field of the configuration can be changed with --branch.field VALUE; `tats fields` lists
    them all. The official script's flags (--mask_ratio, --epochs, ...) work too.
    """

    config: tyro.conf.Positional[Path]
    """YAML file, e.g. tune_configs/ucf101_tats.yaml."""
    resume: bool = False
    """Continue the run of this name from its newest checkpoint."""


@dataclass(frozen=True)
class Demo:
    """Make about 200 videos, train on them, and show what was learned. Takes fields as pretrain."""

    resume: bool = False
    """Continue an interrupted demo."""


@dataclass(frozen=True)
class ShowMasks:
    """Draw what a checkpoint looks at in a video."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder, or one checkpoint of it."""
    video: tyro.conf.Positional[Path]
    out: Path = Path("masks.png")
    """PNG to write."""
    compare: Path | None = None
    """Checkpoint whose mask is the last row; default: a uniformly random mask."""
    mask_ratio: float | None = None
    """Other than the checkpoint's own."""


# One flat command: to tyro a union of one class is no subcommand, and "synth" would be the folder.
@dataclass(frozen=True)
class Data:
    """Work on video data: `synth` writes videos whose motion is known, with lists and labels."""

    action: tyro.conf.Positional[Literal["synth"]]
    """What to do."""
    out: tyro.conf.Positional[Path]
    """Folder to write; new, or holding this very data set."""
    num_train: int = 200
    num_val: int = 48
    num_frames: int = 32
    size: int = 96
    """Pixels along each side."""
    seed: int = 0
    look: Literal["vivid", "clear"] = "vivid"
    """clear shows warm sprites on a calm, cool ground: what moves is learned in minutes."""


@dataclass(frozen=True)
class New:
    """Start something of your own: `algorithm` writes a short file that works, and its test."""

    what: tyro.conf.Positional[Literal["algorithm"]]
    """What to start."""
    name: tyro.conf.Positional[str]
    """Of the module, like my_algorithm."""
    folder: Path = Path()
    """Where the two files go; default: here."""


@dataclass(frozen=True)
class Compare:
    """Say whether runs of other settings differ by more than their seeds do."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders; those that differ in their seed alone form a group."""
    metric: str = "eval/error"
    """What to compare, as docs/metrics.md names it."""


@dataclass(frozen=True)
class Card:
    """One page about an environment: state, action, reward and its sign, sizes, speed."""

    id: str = "TATS/TokenSelection-v0"
    """Gymnasium id; `module:Namespace/Name-vN` for one of another package."""


@dataclass(frozen=True)
class Baseline:
    """Train every algorithm against the tiny frozen autoencoder, and measure all of them alike."""

    clips: int = 256
    """Fixed clips that everything is measured on."""
    steps: int = 100
    """Updates of each learner."""
    seeds: int = 3
    """Times that each learner is trained."""


@dataclass(frozen=True)
class Env:
    """Look at the environments: `card` describes one, `baseline` measures the algorithms."""

    action: (
        Annotated[Card, tyro.conf.subcommand("card")]
        | Annotated[Baseline, tyro.conf.subcommand("baseline")]
    )


@dataclass(frozen=True)
class Inspect:
    """Say what a checkpoint is and what it holds; runs nothing that is in it."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder, checkpoint, transformers folder, or weight file (.pth, .safetensors)."""


@dataclass(frozen=True)
class Convert:
    """Write a checkpoint in another form: a run folder, or a file with the official names."""

    checkpoint: tyro.conf.Positional[Path]
    """Anything that `inspect` knows."""
    out: tyro.conf.Positional[Path]
    """Run folder to write; or a .pth or .safetensors file, which gets the official names."""
    config: Path | None = None
    """Settings of a run that starts from these weights; default: those of the file's own model."""
    allow_partial: bool = False
    """Take a checkpoint that lacks more than 5 % of the autoencoder, as an encoder alone does."""
    num_frames: int = 0
    """Frames of a clip, where the file does not say; default 16."""
    image_size: int = 0
    """Pixels of a clip along each side, likewise; default 224."""


@dataclass(frozen=True)
class Ckpt:
    """Work on checkpoints: `inspect` says what a file is, `convert` changes its form."""

    action: (
        Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
    )


@dataclass(frozen=True)
class Export:
    """Write a checkpoint for another library: `hf` is a folder that transformers loads."""

    form: tyro.conf.Positional[Literal["hf"]]
    """For whom."""
    checkpoint: tyro.conf.Positional[Path]
    """Anything that `tats ckpt inspect` knows."""
    out: tyro.conf.Positional[Path]
    """Folder to write; new."""
    num_frames: int = 0
    """Frames of a clip, where the file does not say; default 16."""
    image_size: int = 0
    """Pixels of a clip along each side, likewise; default 224."""


@dataclass(frozen=True)
class Extract:
    """Write what a frozen encoder says about the videos of a list to a safetensors file."""

    checkpoint: tyro.conf.Positional[Path]
    """Anything that `tats ckpt inspect` knows."""
    list: tyro.conf.Positional[Path]
    """List of videos, with labels or without."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("features.safetensors")
    """File to write."""
    root: Path | None = None
    """Folder that relative paths in the list start from; default: the list's own folder."""
    pool: Literal["mean", "tokens"] = "mean"
    """One vector per view, or one per token."""
    views: str = "1x1"
    """CLIPSxCROPS of every video: along the time, and along the longer side."""
    sampling: Literal["dense", "segments"] = "dense"
    """segments takes a frame from each equal part of the video."""
    num_frames: int = 0
    """Frames of a clip, where the checkpoint does not say; default 16."""
    image_size: int = 0
    """Pixels of a clip along each side, likewise; default 224."""
    stride: int = 0
    """Video frames from one clip frame to the next; default: as it was trained, or 2."""
    workers: int = 0
    """Processes that decode; they change nothing but the speed."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU where there is one."""
    max_gb: float = 16.0
    """Largest size of the features."""


@dataclass(frozen=True)
class Probe:
    """Measure what the features of a frozen encoder are worth for telling classes apart."""

    kind: tyro.conf.Positional[Literal["linear", "attentive", "knn"]]
    """linear reads mean-pooled tokens, attentive all of them with one query; knn learns nothing."""
    checkpoint: tyro.conf.Positional[Path]
    """Anything that `tats ckpt inspect` knows."""
    data: tyro.conf.Positional[Path | None] = None
    """Folder with train.csv and val.csv; or name both with --train and --val."""
    train: Path | None = None
    """List of labelled videos to learn from."""
    val: Path | None = None
    """List of labelled videos to measure on."""
    root: Path | None = None
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
    lrs: tuple[float, ...] = ()
    """Learning rates to try, for a batch of 256; default: the preset's."""
    weight_decays: tuple[float, ...] = ()
    """Weight decays to try with each of them; default: the preset's."""
    k: int = 20
    """Neighbours of knn."""
    temperature: float = 0.07
    """Of the neighbours' weights."""
    seed: int = 0
    """Of the heads, their batches, and the held-out part of the training list."""
    untrained: bool = False
    """Probe freshly drawn weights in the checkpoint's shape: the baseline to beat."""
    num_frames: int = 0
    """Frames of a clip, where the checkpoint does not say; default 16."""
    image_size: int = 0
    """Pixels of a clip along each side, likewise; default 224."""
    stride: int = 0
    """Video frames from one clip frame to the next; default: as it was trained, or 2."""
    workers: int = 0
    """Processes that decode; they change nothing but the speed."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU where there is one."""
    out: Path | None = None
    """Folder for results and cached features; default: the run's."""
    max_gb: float = 16.0
    """Largest size of the features of one list; they are held in memory."""


@dataclass(frozen=True)
class Overlap:
    """Clips per second with the policy learning beside the autoencoder, against by turns."""

    rounds: int = 3
    """Times that both modes run, by turns."""
    steps: int = 48
    """Steps measured in each."""
    staleness: int = 1
    """loop.max_staleness of the overlapped mode."""


@dataclass(frozen=True)
class Buffer:
    """What handing over rollouts and weights costs, as a share of a training step."""

    size: Literal["small", "base", "large"] = "base"
    """Of the model; base is the paper's."""
    batch: int = 32
    """Clips of a rollout."""
    rounds: int = 5
    """Times that each part is measured."""
    step_clips: int = 2
    """Clips of the training step that it is compared with, scaled to the batch; 0 leaves it out."""
    device: str = "cpu"
    """Of the rollout and the step: cpu, cuda, cuda:1, ...; a GPU's step takes the whole batch."""


@dataclass(frozen=True)
class Scale:
    """How many producers of rollouts one buffer and one policy learner can serve."""

    producers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers of producers to try."""
    clips: int = 2
    """Clips of a rollout, at ViT-B sizes."""
    period_s: float = 1.0
    """Seconds that a producer takes for one."""
    seconds: float = 6.0
    """Time that each number is measured for."""


@dataclass(frozen=True)
class Bench:
    """Measure what moves rollouts and weights: overlapping, the buffer, and its limits."""

    action: (
        Annotated[Overlap, tyro.conf.subcommand("overlap")]
        | Annotated[Buffer, tyro.conf.subcommand("buffer")]
        | Annotated[Scale, tyro.conf.subcommand("scale")]
    )


@dataclass(frozen=True)
class Tune:
    """Run many trials of a configuration and compare them; `tats tune report EXP` shows them again.

    Takes fields as pretrain, for all trials, and those of the sweep as --sweep.FIELD.
    """

    sweep: tyro.conf.Positional[Path]
    """Sweep file, e.g. tune_configs/demo_table2.yaml."""
    dry_run: bool = False
    """Check everything, print the plan, and stop."""
    resume: bool = False
    """Keep the finished trials of this name, and go on with the rest."""


@dataclass(frozen=True)
class TuneReport:
    """Table, pictures and best.yaml of a sweep, finished or not; typed as `tats tune report`."""

    experiment: tyro.conf.Positional[Path]
    """Folder of the sweep, such as runs/demo_table2."""
    out: Path | None = None
    """Folder for a copy of the report and its pictures."""


@dataclass(frozen=True)
class Finetune:
    """Train a classifier from a pre-trained encoder.

    Any field can be changed with --branch.field VALUE; `tats fields --finetune` lists them all.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Anything that `tats ckpt inspect` knows."""
    data: tyro.conf.Positional[Path | None] = None
    """Folder with train.csv and val.csv; or name both lists in the configuration."""
    config: Path | None = None
    """YAML file, e.g. tune_configs/finetune_ucf101.yaml; default: the defaults."""
    from_scratch: bool = False
    """Freshly drawn weights in the checkpoint's shape: the supervised baseline."""
    new_head: bool = False
    """Leave out the classifier of a checkpoint that was fine-tuned already."""
    resume: bool = False
    """Continue the run of this name from its newest checkpoint."""


@dataclass(frozen=True)
class Test:
    """Measure a fine-tuned classifier: several views of every video, their scores averaged."""

    checkpoint: tyro.conf.Positional[Path]
    """Fine-tuned: a run folder, or anything else with a head that `tats ckpt inspect` knows."""
    data: tyro.conf.Positional[Path | None] = None
    """Folder with test.csv or val.csv; or name the list with --list."""
    list: Path | None = None
    """List of labelled videos."""
    root: Path | None = None
    """Folder that relative paths in it start from; default: the run's own, else the list's."""
    views: str = ""
    """CLIPSxCROPS; default: the run's own, else 2x3. Kinetics-400 takes 5x3."""
    sampling: Literal["dense", "segments"] | None = None
    """segments is for Something-Something; default: the run's own, else dense."""
    num_frames: int = 0
    """Frames of a clip, where the checkpoint does not say; default 16."""
    image_size: int = 0
    """Pixels of a clip along each side, likewise; default 224."""
    stride: int = 0
    """Video frames from one clip frame to the next; default: as it was trained, or 2."""
    workers: int = 0
    """Processes that decode; they change nothing but the speed."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU where there is one."""
    out: Path | None = None
    """Folder for results; default: the run's."""
    max_gb: float = 16.0
    """Largest size of the features, which are held in memory."""


@dataclass(frozen=True)
class Fields:
    """List every field of the configuration, with its default and its meaning."""

    finetune: bool = False
    """Those of `tats finetune` instead of `tats pretrain`."""


@dataclass(frozen=True)
class Doctor:
    """Say what works on this machine, with a line of help for what does not."""

    node: bool = False
    """Also check what a node of a cluster needs: token, host name."""
    lock: Path | None = None
    """requirements.lock whose Ray and torch must be installed."""
    storage: str = ""
    """Folder that must be writable."""


@dataclass(frozen=True)
class Submit:
    """Start a command of tats on a cluster: tats submit [options] -- pretrain CONFIG [fields]."""

    address: str = ""
    """Job server, http://HOST:PORT; default: RAY_API_SERVER_ADDRESS, or port 8265 here."""
    include: tuple[Path, ...] = ()
    """More files and folders to upload; configurations that the command names go by themselves."""
    name: str = ""
    """Name of the job; default: made of the command and the time."""
    wait: bool = True
    """Show the job's output until it ends; Ctrl-C leaves it running."""


@dataclass(frozen=True)
class Status:
    """List the jobs of a cluster."""

    address: str = ""
    """Job server; as of submit."""


@dataclass(frozen=True)
class Logs:
    """Show a job's output until it ends; Ctrl-C leaves it running."""

    job: tyro.conf.Positional[str]
    """As status names it."""
    address: str = ""
    """Job server; as of submit."""


@dataclass(frozen=True)
class Stop:
    """Stop a job once it saved a checkpoint."""

    job: tyro.conf.Positional[str]
    """As status names it."""
    address: str = ""
    """Job server; as of submit."""


@dataclass(frozen=True)
class Lint:
    """Look at a cluster file before it costs anything: cluster.yaml, or a KubeRay manifest."""

    file: tyro.conf.Positional[Path]


@dataclass(frozen=True)
class ClusterDoctor:
    """Look at every node of a running cluster, and at the network between them."""

    address: str = ""
    """Job server to ask from outside; on a node of the cluster leave it out."""
    storage: str = ""
    """Folder that all nodes should share."""
    seconds: float = 10.0
    """Of the all-reduce between the nodes."""


@dataclass(frozen=True)
class Wheel:
    """Write this package as a wheel, for the nodes to install."""

    folder: tyro.conf.Positional[Path] = Path("dist")


@dataclass(frozen=True)
class Cluster:
    """Work on clusters: `lint` a file, `doctor` a running one, `wheel` for its nodes."""

    action: (
        Annotated[Lint, tyro.conf.subcommand("lint")]
        | Annotated[ClusterDoctor, tyro.conf.subcommand("doctor")]
        | Annotated[Wheel, tyro.conf.subcommand("wheel")]
    )


Command = (
    Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[ShowMasks, tyro.conf.subcommand("show-masks")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Env, tyro.conf.subcommand("env")]
    | Annotated[New, tyro.conf.subcommand("new")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Ckpt, tyro.conf.subcommand("ckpt")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Extract, tyro.conf.subcommand("extract")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Test, tyro.conf.subcommand("test")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Tune, tyro.conf.subcommand("tune")]
    | Annotated[TuneReport, tyro.conf.subcommand("tune-report")]
    | Annotated[Fields, tyro.conf.subcommand("fields")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Submit, tyro.conf.subcommand("submit")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Logs, tyro.conf.subcommand("logs")]
    | Annotated[Stop, tyro.conf.subcommand("stop")]
    | Annotated[Cluster, tyro.conf.subcommand("cluster")]
)


_WITH_DATA: Mapping[str, type] = {"finetune": Finetune, "probe": Probe, "test": Test}
"""Commands whose folder of data may be left out; tyro would take an unknown flag in its place."""


def _set_aside(words: Sequence[str], command: type) -> tuple[list[str], list[str]]:
    """Words of the command itself, and flags that it does not have with what follows them."""
    own = {f.name for f in fields(command)} - {"kind", "checkpoint", "data"}
    kept: list[str] = []
    left: list[str] = []
    into = kept
    for word in words:
        if word.startswith("--") or word == "-h":
            name = word.lstrip("-").partition("=")[0].replace("-", "_").removeprefix("no_")
            into = kept if name in (*own, "h", "help") else left
        into.append(word)
    return kept, left


def parse(words: Sequence[str]) -> tuple[object, list[str]]:
    """A command, and the words that are left: fields of the configuration, or what to submit."""
    if list(words[:1]) == ["submit"] and "--" in words:
        cut = list(words).index("--")
        return parse(words[:cut])[0], list(words[cut + 1 :])
    if list(words[:2]) == ["tune", "report"]:  # beside a file name, tyro has no room for a verb
        words = ["tune-report", *words[2:]]
    left: list[str] = []
    if words and words[0] in _WITH_DATA:
        words, left = _set_aside(words, _WITH_DATA[words[0]])
    command, more = tyro.cli(
        Command,
        prog="tats",
        description="Trajectory-guided adaptive token selection for masked video modelling.",
        args=words,
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    return command, [*more, *left]
