"""Tables of speed: their ratios, peers loaded by path, and the two programs from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tats_ray.benchmarks.speed import tables
from tats_ray.benchmarks.speed.peers import Peer
from tats_ray.benchmarks.speed.rounds import Ratio, take_turns

from tats_ray.core.errors import UsageError

ROOT = Path(__file__).parents[3]


def test_variants_take_turns_and_the_first_round_does_not_count() -> None:
    told: list[str] = []

    def variant(name: str) -> Any:
        return lambda: told.append(name) or float(len(told))

    rounds = take_turns({"a": variant("a"), "b": variant("b")}, 2)
    assert told == ["a", "b"] * 3
    assert rounds == [{"a": 3.0, "b": 4.0}, {"a": 5.0, "b": 6.0}]


def test_ratio_is_of_each_round_and_gives_no_verdict_where_rounds_differ() -> None:
    """A machine that is twice as slow in one round changes no ratio; one variant alone does."""
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 4.2, "b": 2.0}, {"a": 2.2, "b": 1.0}]
    ratio = Ratio.of(rounds, "a", "b")
    assert str(ratio) == "2.10x [2.00-2.20]"
    assert (ratio.against(2.0), ratio.against(2.2)) == ("reached", "missed")
    assert (ratio.against(2.0, is_cost=True), ratio.against(2.2, is_cost=True)) == (
        "missed",
        "reached",
    )
    noisy = Ratio.of([*rounds, {"a": 2.4, "b": 1.0}], "a", "b")
    assert noisy.against(1.0) == "no verdict: the rounds differ by 19%"


def test_every_ratio_has_a_bar() -> None:
    against_peers = {f"{peer}'s own / {kind}" for peer, kind in tables.RIVALS.items()}
    assert against_peers | {"learned / random", "forward", "both ways"} == tables.BARS.keys()


PEER = {
    "modeling_pretrain.py": """
from timm.optim.novograd import NovoGrad
from utils import OWNER
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = self
        self.patch_embed = torch.nn.Linear(1, 1)
        self.patch_embed.num_patches = 40
    def forward(self, videos, mask):
        assert mask.shape == (len(videos), 40) and int(mask.sum()) == 38 * len(videos)
        return self.patch_embed(videos.mean((1, 2, 3, 4))[:, None]).mean()
def pretrain_videomae_base_patch16_224(decoder_depth):
    return Model()
""",
    "utils.py": """
from torch._six import inf
OWNER = "NAME"
class NativeScalerWithGradNormCount:
    def __call__(self, loss, optimizer):
        loss.backward()
        optimizer.step()
""",
    "engine_for_pretraining.py": """
import json
import pathlib
import torch
import utils
def train_one_epoch(model, loader, optimizer, device, epoch, scaler, **settings):
    print("chatter")
    torch.cuda.synchronize()
    for videos, mask in loader:
        loss = model(videos, mask)
        optimizer.zero_grad()
        scaler(loss, optimizer)
        told = json.dumps([utils.OWNER, loss.item(), scaler.state_dict()["scale"]])
        with pathlib.Path(__file__).with_name("seen").open("a") as file:
            print(told, file=file)
""",
    "optim_factory.py": """
import torch
from timm.optim.nadam import Nadam
def create_optimizer(args, model):
    return torch.optim.SGD(model.parameters(), lr=1.0)
""",
}


def checkout(folder: Path, name: str) -> Peer:
    folder.mkdir()
    for file, text in PEER.items():
        (folder / file).write_text(text.replace("NAME", name))
    return Peer(folder)


def test_peers_step_is_their_own_and_leaves_no_module_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two checkouts whose files have the same names, with imports that are gone."""
    before = set(sys.modules)
    for name in ("first", "second"):
        step = checkout(tmp_path / name, name).step(size="base", mask_ratio=0.95, batch=2)
        step()
        step()
        seen = [json.loads(line) for line in (tmp_path / name / "seen").read_text().splitlines()]
        (owner, first, scale), (_, second, _) = seen
        assert (owner, scale) == (name, 1.0)
        assert second < first  # it descends
    assert capsys.readouterr().out == ""
    added = set(sys.modules) - before
    assert not {"utils", "engine_for_pretraining", "timm.optim.novograd", "torch._six"} & added
    assert sys.modules["timm.optim"].Adafactor is sys.modules["timm.optim.adafactor"].Adafactor


def test_folder_that_is_no_peer_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--peer .* is no checkout of AdaMAE or VideoMAE"):
        Peer(tmp_path)
    peer = checkout(tmp_path / "videomae", "x")
    with pytest.raises(UsageError, match=r"VideoMAE has no model of size 'tiny'; use \['base'\]"):
        peer.step(size="tiny", mask_ratio=0.95, batch=1)
    (tmp_path / "videomae" / "utils.py").write_text("import nothing_of_the_kind")
    with pytest.raises(UsageError, match="cannot be used: No module named 'nothing_of_the_kind'"):
        peer.step(size="base", mask_ratio=0.95, batch=1)


def test_tables_are_printed_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "tables.json"
    tables.main(f"--only step,operations --size tiny --batch 1 --rounds 1 --save {out}".split())
    saved, shown = json.loads(out.read_text()), capsys.readouterr().out
    assert {"date", "torch", "device", "cores", "peers"} <= set(saved)
    step, counts = saved["tables"]["step"], saved["tables"]["operations"]
    parts = step["parts_ms_per_clip"]
    assert step["ms_per_clip"]["learned"] == pytest.approx(sum(parts["learned"].values()), abs=2)
    assert parts["random"]["learn"] == 0
    assert counts["learned"]["fetched"] == counts["random"]["fetched"] == 0
    assert counts["random"]["learn"] == 0 < counts["learned"]["learn"] <= 1000
    assert f"policy update: {counts['learned']['learn']}, bar 1000: reached" in shown
    with pytest.raises(UsageError, match="--only spead is no table; there are operations, step"):
        tables.main(["--only", "spead"])


GPU = """
import sys
for name in "ray decord av gymnasium pydantic yaml rich safetensors jaxtyping beartype".split():
    sys.modules[name] = None
from tats_ray.benchmarks import gpu
gpu.main(sys.argv[1:])
"""


@pytest.mark.long
def test_gpu_measurements_run_from_end_to_end_on_a_cpu_with_torch_timm_and_einops(
    tmp_path: Path,
) -> None:
    """As the machine with the GPU has it: a fault there would cost its minutes."""
    out = tmp_path / "gpu.json"
    words = f"--device cpu --tiny --rounds 1 --compile off --out {out}".split()
    done = subprocess.run(
        [sys.executable, "-c", GPU, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    found = figures["settings"]
    assert [(one["batch"], one["mask_ratio"]) for one in found] == [
        (2, 0.95), (4, 0.95), (2, 0.9), (4, 0.9),
    ]  # fmt: skip
    assert figures["left_out"] == []
    for one in found:
        assert len(one["longest_kernels"]) == 10
        assert one["second_stage"]["kernel"].startswith("cannot be used here: ")
        assert 0 < sum(kernel["share"] for kernel in one["longest_kernels"]) <= 1.01
        for kind in ("learned", "random"):
            assert one[kind]["numbers_fetched"] == 0
            share = one[kind]["share_of_peak"]["measured"]
            rate = one[kind]["tera_operations"] / one[kind]["step_ms"] * 1e3
            assert share == pytest.approx(rate / figures["peak_tflops"]["measured"], abs=2e-2)
        assert one["learned"]["tera_operations"] > one["random"]["tera_operations"] > 0
    twice = found[1]["random"]["tera_operations"] / found[0]["random"]["tera_operations"]
    assert twice == pytest.approx(2, rel=0.1)


BURN = """
import signal, subprocess, sys, time
from pathlib import Path
if len(sys.argv) > 1:
    while time.process_time() < float(sys.argv[1]):
        pass
    time.sleep(1)  # so that a look sees all of it, however busy the machine is
    sys.exit()
subprocess.run([sys.executable, __file__, "0.3"], check=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as Ray does: the kernel forgets the next one's time
daemon = subprocess.Popen([sys.executable, __file__, "0.6"], start_new_session=True)
while Path(f"/proc/{daemon.pid}").exists():
    time.sleep(0.05)
"""


def test_cpu_seconds_are_of_all_processes_of_a_command_and_of_forgotten_ones(
    tmp_path: Path,
) -> None:
    (tmp_path / "burn.py").write_text(BURN)
    program = [sys.executable, str(ROOT / "benchmarks" / "speed" / "cpu_seconds.py")]
    words = [*program, sys.executable, str(tmp_path / "burn.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert 0.85 < float(done.stdout.split(" CPU seconds")[0]) < 1.4, done.stderr
    done = subprocess.run([*program, "false"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cpu_seconds: Command '['false']' returned non-zero exit status")
