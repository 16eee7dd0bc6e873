"""Tables of the documentation that come from the code; `test_docs.py` compares, or writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, replace
from dataclasses import fields as dataclass_fields
from functools import partial
from pathlib import Path
from typing import Any

from tats_ray.benchmarks.evidence.tables import arms_table, choice_table, part_tables

from tats_ray.config.docstrings import field_docstrings
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.load import (
    OFFICIAL_FLAGS,
    field_docs,
    load_config,
)
from tats_ray.config.parts import algorithm_class
from tats_ray.config.plugins import ALGORITHMS, SAMPLERS
from tats_ray.config.schema import AlgorithmConfig, SamplerConfig
from tats_ray.config.sweep_schema import SweepConfig
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.runtime.resources.cost_model import Figures, clips_that_fit, needs
from tats_ray.view.glossary import GLOSSARY
from tests.test_layers import DOORS

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "tune_configs" / "pong_cpu.yaml"
PAPER = ROOT / "tune_configs" / "ucf101_tats.yaml"


def shown(value: Any) -> str:
    """A value as it would be typed; empty text as two quotes."""
    if isinstance(value, (tuple, list)):
        return " ".join(str(part) for part in value)
    return str(value) if value != "" else '""'


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def flags_table() -> str:
    rows = [(f"`--{flag}`", f"`{field}`") for flag, field in OFFICIAL_FLAGS.items()]
    return table(("Official flag", "Field"), rows)


def fields_table() -> str:
    rows = [
        (f"`{name}`", f"`{shown(default)}`", meaning) for name, meaning, default in field_docs()
    ]
    return table(("Field", "Default", "Meaning"), rows)


def finetune_fields_table() -> str:
    docs = field_docs(FinetuneConfig())
    rows = [(f"`{name}`", f"`{shown(default)}`", meaning) for name, meaning, default in docs]
    shared = ("checkpoint.", "log.", "cluster.")
    own = [row for row in rows if not row[0].strip("`").startswith(shared)]
    return table(("Field", "Default", "Meaning"), own)


def metrics_table() -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in GLOSSARY.items()]
    return table(("Metric", "Meaning"), rows)


def algorithm_fields(name: str) -> dict[str, Any]:
    """Field -> default, without those that every algorithm has."""
    shared = {f.name for f in dataclass_fields(AlgorithmConfig)}
    own = dataclass_fields(algorithm_class(name))
    return {f.name: f.default for f in own if f.name not in shared}


def algorithms_table() -> str:
    rows = [
        (f"`{name}`", ", ".join(f"`{k}` = `{shown(v)}`" for k, v in algorithm_fields(name).items()))
        for name in ALGORITHMS
    ]
    return table(("Name", "Fields of its own, with defaults"), rows)


def samplers_table() -> str:
    rows = []
    for name in SAMPLERS:
        sampler = find_sampler(SamplerConfig(name=name))
        rows.append((f"`{name}`", "yes" if sampler.learns else "no", sampler.shows))
    return table(("Name", "Learns", "Visible tokens"), rows)


def sweep_table() -> str:
    docs = field_docstrings(SweepConfig)
    rows = []
    for f in dataclass_fields(SweepConfig):
        default = "" if f.default in (MISSING, "") else f"`{shown(f.default)}`"
        rows.append((f"`{f.name}`", default, docs[f.name]))
    return table(("Field", "Default", "Meaning"), rows)


def demo_table() -> str:
    """Where the demo's method differs from the paper's; places and machines are left out."""
    paper, demo = (dict(leaves(asdict(load_config(path)))) for path in (PAPER, DEMO))
    branches = ("data.num_frames", "data.image_size", "model", "sampler", "algorithm", "loop")
    rows = [
        (f"`{name}`", f"`{shown(paper[name])}`", f"`{shown(demo[name])}`")
        for name in paper
        if name.startswith((*branches, "optim")) and paper[name] != demo[name]
    ]
    return table(("Field", "UCF101 preset", "Demo"), rows)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


CACHE = 97.0
"""Clips/s that a core decodes from a JPEG cache: `benchmarks/speed/data_readers.py`."""


def inside_table() -> str:
    """What runs of ViT-B ask for whose policy learns inside every learner."""
    rows, figures = [], Figures()
    half = replace(figures, mae_bytes=figures.mae_bytes / 2)
    cached = replace(figures, decode_clips_per_core_s=CACHE)
    for gpus in (1, 8, 64, 512):
        asked, halved, from_cache = (
            needs(f, gpus, place="learner") for f in (figures, half, cached)
        )
        rows.append(
            (
                str(gpus),
                f"{asked.clips_per_s:,.0f}",
                f"{asked.loads['decoding']:.2f}",
                f"{from_cache.loads['decoding']:.2f}",
                f"{asked.loads['network']:.2f}",
                f"{halved.loads['network']:.2f}",
            )
        )
    loads = ("decoding", "decoding from a cache", "network", "network, gradients in bfloat16")
    return table(("GPUs", "clips/s", *(f"load: {name}" for name in loads)), rows)


def apart_table() -> str:
    """The same with one buffer and one policy learner, by the cost model's default figures."""
    rows, figures = [], Figures()
    for gpus in (8, 64, 512):
        asked = needs(figures, gpus)
        clips = clips_that_fit(figures, gpus, load="hand-over")
        rows.append(
            (
                str(gpus),
                f"{asked.clips_per_s:,.0f}",
                f"{asked.rollout_bytes_s / 1e9:,.1f} GB/s",
                *(f"{load:,.1f}" for load in asked.loads.values()),
                f"{clips}/{figures.clips_per_step}" if clips else "none",
            )
        )
    loads = [f"load: {name}" for name in needs(figures, 8).loads]
    return table(("GPUs", "clips/s", "rollouts", *loads, "fraction that fits"), rows)


def sharded_table() -> str:
    """The same with a policy learner and a shard of the buffer on every node."""
    rows, figures = [], Figures()
    for gpus in (8, 64, 512):
        shards = gpus // figures.gpus_per_node
        asked = needs(figures, gpus, shards=shards)
        clips = clips_that_fit(figures, gpus, load="hand-over", shards=shards)
        rows.append(
            (
                str(gpus),
                str(shards),
                *(f"{load:,.1f}" for load in asked.loads.values()),
                f"{clips}/{figures.clips_per_step}" if clips else "none",
            )
        )
    loads = [f"load: {name}" for name in needs(figures, 8).loads]
    return table(("GPUs", "policy learners", *loads, "fraction that fits"), rows)


def doors_table() -> str:
    rows = [
        (f"`{library}`", ", ".join(f"`{place}`" for place in places) or "nowhere")
        for library, places in sorted(DOORS.items())
    ]
    return table(("Library", "Imported only in"), rows)


def presets_table() -> str:
    """Each file and the first sentence of its first comment."""
    rows = []
    for path in sorted((ROOT / "tune_configs").glob("*.yaml")):
        line = path.read_text().splitlines()[0].removeprefix("# ")
        rows.append((f"`{path.name}`", line.split(". ")[0].rstrip(".,")))
    return table(("File", "What it is for"), rows)


TABLES = {
    "evidence_arms": arms_table,
    "evidence_choice": choice_table,
    "evidence_quick": partial(part_tables, "quick"),
    "evidence_finding": partial(part_tables, "finding"),
    "evidence_main": partial(part_tables, "main"),
    "evidence_longer": partial(part_tables, "longer"),
    "evidence_ablations": partial(part_tables, "ablations"),
    "presets": presets_table,
    "doors": doors_table,
    "inside": inside_table,
    "apart": apart_table,
    "sharded": sharded_table,
    "algorithms": algorithms_table,
    "samplers": samplers_table,
    "flags": flags_table,
    "fields": fields_table,
    "finetune_fields": finetune_fields_table,
    "metrics": metrics_table,
    "demo": demo_table,
    "sweep": sweep_table,
}
