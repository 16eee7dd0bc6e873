"""`tats probe state`: how well frozen features tell true states, beside what is no merit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from tats_ray.checkpoints.open import resolve_path
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder
from tats_ray.core.words import counted
from tats_ray.data.clip_lists import shared_in_words
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.views import ViewDataset, ViewPlan
from tats_ray.evaluation.encoder import OpenedEncoder, folder_of_run, open_encoder
from tats_ray.evaluation.extract import refuse_too_large, say, warn, without_repeats
from tats_ray.evaluation.feature_cache import cached
from tats_ray.evaluation.features import FeatureRequest, FrozenEncoder
from tats_ray.evaluation.results import versions
from tats_ray.evaluation.states.readouts import (
    ATTENTIVE,
    HELD_OUT,
    PENALTIES,
    StateScores,
    principal_components,
    read_attentively,
    read_linearly,
    read_majority,
)
from tats_ray.evaluation.states.targets import Targets, binned, read_targets
from tats_ray.view.progress import VideoCount
from tats_ray.view.tables import print_table

_MEASURES = {"f1": "weighted F1, %", "accuracy": "accuracy, %", "r2": "R2"}


@dataclass(frozen=True, kw_only=True)
class StateRequest:
    """What is probed, and on which clips."""

    checkpoint: Path
    train_list: Path
    val_list: Path
    root: Path | None = None
    views: ViewPlan = field(default_factory=ViewPlan)
    """Of the videos of both lists; each view is an example of its own."""
    change: int = 0
    """Frames over which changes of states are read instead of states; see `read_targets`."""
    seed: int = 0
    """Of the untrained encoder and of the attentive heads."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.change < 0:
            raise UsageError(f"change must be 0 or more frames, got {self.change}")


def probe_states(request: StateRequest) -> dict[str, StateScores]:
    """Scores of every way to read the states; prints a table for each measure and writes them all.

    Raises:
        UsageError, VideoError, NonFiniteError: each says what to do.
    """
    request = replace(request, checkpoint=resolve_path(request.checkpoint))
    paths = request.train_list, request.val_list
    train_list, val_list = (
        without_repeats(read_list(path, root=request.root), str(path)) for path in paths
    )
    if shared := shared_in_words(train_list, val_list, paths, "scores"):
        warn(shared)
    encoders = {
        "untrained": open_encoder(request.checkpoint, request.encoder, untrained_seed=request.seed),
        "encoder": open_encoder(request.checkpoint, request.encoder),
    }
    source = encoders["encoder"]
    say(source.words, "encoder")
    root = request.out or folder_of_run(request.checkpoint)
    make_folder(root / "probes")
    lists = train_list, val_list
    train, val, left_out = binned(*(_targets(part, request, source) for part in lists))
    if left_out:
        say(f"left out, since they vary too little or are rarely known: {', '.join(left_out)}")
    found = {"majority": read_majority(train, val)}
    shown, tested = (_middle_frames(part, request, source) for part in lists)
    found["pixels"] = read_linearly(*principal_components(shown, tested, source.width), train, val)
    for name, opened in encoders.items():
        found |= _read_encoder(name, opened, request, lists, (train, val), root)
    _show(found, train, len(val.values))
    protocol = {
        "probe": "state",
        "checkpoint": str(request.checkpoint),
        **source.about(),
        "lists": [str(path) for path in paths],
        "views": str(request.views),
        "seed": request.seed,
        "read": "states of the middle frame of a clip",
        **({"change": request.change} if request.change else {}),
        "held_out": HELD_OUT,
        "penalties": PENALTIES,
        "attentive": ATTENTIVE,
        "classes": dict(zip(train.names, train.num_classes.tolist(), strict=True)),
        "left_out": left_out,
        **versions(),
    }
    _write(root / "probes", protocol, found, train.names)
    return found


def _targets(
    entries: Sequence[VideoEntry], request: StateRequest, source: FrozenEncoder
) -> Targets:
    return read_targets(
        entries,
        request.views,
        num_frames=source.grid.num_frames,
        stride=source.data.stride,
        change=request.change,
    )


def _middle_frames(
    entries: Sequence[VideoEntry], request: StateRequest, source: FrozenEncoder
) -> Float[Tensor, "n P"]:
    """The frames that the states belong to, as the encoder is shown them; 0 to 1."""
    dataset = ViewDataset(
        entries,
        request.views,
        num_frames=source.grid.num_frames,
        image_size=source.grid.image_size,
        stride=source.data.stride,
        min_frames=source.data.min_frames,
        backend=source.data.decoder,
    )
    rows, shown = [], VideoCount()
    for index in range(len(dataset)):
        shown(index, len(dataset))
        views = dataset[index]
        if views.pixels is None:
            raise UsageError(f"{entries[index].path}: {views.reason}; leave it out of the list")
        rows.append(views.pixels[:, :, views.pixels.shape[2] // 2].flatten(1))
    return torch.cat(rows).float() / 255


def _read_encoder(
    name: str,
    opened: OpenedEncoder,
    request: StateRequest,
    lists: tuple[Sequence[VideoEntry], Sequence[VideoEntry]],
    truth: tuple[Targets, Targets],
    root: Path,
) -> dict[str, StateScores]:
    """From mean-pooled and from attentively pooled tokens."""

    def tokens(entries: Sequence[VideoEntry]) -> Float[Tensor, "n N D"]:
        asked = FeatureRequest(source=opened, entries=entries, plan=request.views, pool="tokens")
        refuse_too_large(asked, request.encoder.max_gb)
        found = cached(asked, root / "features", num_workers=request.encoder.workers, say=say)
        return found.values.flatten(0, 1)

    def means(tokens: Float[Tensor, "n N D"]) -> Float[Tensor, "n D"]:
        return torch.stack([clip.float().mean(0) for clip in tokens])

    train, val = (tokens(entries) for entries in lists)
    attentive = read_attentively(
        train,
        val,
        *truth,
        num_heads=opened.num_heads,
        seed=request.seed,
        device=opened.encoder.pos_embed.device,
    )
    linear = read_linearly(means(train), means(val), *truth)
    return {f"{name} mean": linear, f"{name} attentive": attentive}


def _show(found: Mapping[str, StateScores], truth: Targets, num_examples: int) -> None:
    for measure, words in _MEASURES.items():
        scale, digits = (1, 2) if measure == "r2" else (100, 1)
        columns = [getattr(scores, measure) for scores in found.values()]
        rows = [
            (name, str(count), *(f"{scale * column[at]:.{digits}f}" for column in columns))
            for at, (name, count) in enumerate(
                zip(truth.names, truth.num_classes.tolist(), strict=True)
            )
        ]
        rows.append(("mean", "", *(f"{scale * fmean(column):.{digits}f}" for column in columns)))
        title = f"state probe, {words}, {counted(num_examples, 'clip')} of the validation list"
        print_table(("value", "classes", *found), rows, title=title)


def _write(
    root: Path,
    protocol: Mapping[str, object],
    found: Mapping[str, StateScores],
    names: Sequence[str],
) -> None:
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
    folder = root / f"state-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    scores = {
        way: {name: dict(zip(names, row, strict=True)) for name, row in asdict(each).items()}
        for way, each in found.items()
    }
    text = json.dumps({**protocol, "results": scores}, indent=1)
    (folder / "protocol.json").write_text(f"{text}\n")
    print(f"{'results':>14}  {folder}", flush=True)
