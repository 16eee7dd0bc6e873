"""One rank of the MAE learner: what runs inside each Ray Train worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.collective import broadcast_from_rank_zero

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import dump_config, parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.group import ALONE, Group
from tats_ray.core.late import Scalar, fetch, unread
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.types import Position
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.clip_loader import ClipSource
from tats_ray.evaluation.mask_evaluator import evaluator
from tats_ray.models.kernel_choice import use_faster_form
from tats_ray.models.policy import is_learned
from tats_ray.models.sharding import shard
from tats_ray.models.zoo import build_mae, build_policy, num_visible, token_grid
from tats_ray.ops.measures import collapse_signs
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.transfer import to_arrays
from tats_ray.runtime.resources.buffer_shards import shard_beside
from tats_ray.runtime.workers.begin import begin_with
from tats_ray.runtime.workers.blame import clips_in_words
from tats_ray.runtime.workers.policy_clients import RayPolicyClient, WorkerFedClient
from tats_ray.runtime.workers.rank import ClipCount, Rank, run_worker
from tats_ray.runtime.workers.ray_reader import RayReader
from tats_ray.training.compilation import Compiler
from tats_ray.training.environments import make_env
from tats_ray.training.mae_learner import MAELearner, accumulates, optimizer_steps
from tats_ray.training.policy_learner import LocalPolicyClient, PolicyClient, PolicyLearner
from tats_ray.training.pretrain_build import Batches
from tats_ray.training.pretrain_loop import Batch, Halt, PretrainLoop, Stage
from tats_ray.training.rank_group import RankGroup, holds_everywhere


def train_loop(job: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a Ray Train worker.

    Args:
        job: `config` (nested dict), `run` (folder of the run), and what `run_worker` takes.
    """
    config = parse_config(job["config"])
    return run_worker(
        job, config.cluster, lambda peers: _Rank(config, Path(job["run"]), peers).run()
    )


class _Rank(Rank):
    """Builds one rank's parts, restores the newest checkpoint, runs the loop."""

    def __init__(self, config: RunConfig, run: Path, peers: Peers) -> None:
        super().__init__(config, run, peers)
        self.config = config
        self.grid = token_grid(config.data, config.model)
        self.lists = read_lists(config.data)
        self.batches = Batches(
            config,
            self.lists.train,
            rank=self.rank,
            world_size=self.world_size,
            num_slots=self.num_slots,
            source=self._clip_source(),
        )
        self.is_sharded = config.cluster.sharding == "fsdp" and self.world_size > 1
        """Then whatever reads the network is done by all ranks together."""
        self.learner = self._mae_learner()

    def _clip_source(self) -> ClipSource | None:
        """This rank's share of the decode actors, where the run has some."""
        mine = self.peers.decoders[self.rank :: self.world_size]
        if not mine:
            return None
        return lambda sampler: RayReader(
            sampler,
            mine,
            timeout_s=self.timeout_s,
            pins=self.config.cluster.use_gpu,
            name=lambda index: self.lists.train[index].path,
        )

    def _mae_learner(self) -> MAELearner:
        config = self.config
        mae = build_mae(config.model, self.grid, seed=config.seed).to(self.device)
        if self.is_sharded:
            shard(mae, self.world_size)
        alone = self.world_size == self.num_slots == 1 and not accumulates(config.loop)
        self._compiler("the autoencoder", has_graphs=alone).mae(mae)
        steps = self.batches.steps_per_epoch
        return MAELearner(
            mae,
            config.optim,
            steps_per_epoch=steps,
            total_steps=optimizer_steps(config.loop, steps),
            global_batch=config.optim.batch_size * self.num_slots,
            precision=config.loop.precision,
            wrapped=mae if self.is_sharded else self.wrapped(mae),
            all_finite=holds_everywhere if self.world_size > 1 else None,
            weight=self.world_size / self.num_slots,
            decode_share=config.model.decode_share,
            seed=config.seed,
        )

    def _compiler(self, what: str, *, has_graphs: bool = True) -> Compiler:
        return Compiler(
            self.config.loop.compile,
            what,
            self._note,
            graphs=has_graphs and self.device.type == "cuda",
        )

    def _note(self, text: str) -> None:
        self.tell("note", text=text)

    def run(self) -> dict[str, Any]:
        loop = self._loop(self._restore())
        return self.carry_out(loop, save=lambda: self.save(loop))

    def _restore(self) -> Position:
        """Load the newest checkpoint, if there is one, and begin an incarnation of the run."""
        found, passed_over = self.newest(checkpoints.load)
        if found is not None:
            checkpoints.load_weights(
                self.learner.mae, found.mae["network"], source=str(self.run_folder)
            )
            self.learner.load_state_dict(found.mae)
        position = found.position if found is not None else Position()
        self.client = self._join(found, position)
        self.tell_start(position.step, is_resumed=position.step > 0, passed_over=passed_over)
        return position

    def _join(
        self, found: checkpoints.Checkpoint | None, position: Position
    ) -> PolicyClient | None:
        peers, loop = self.peers, self.config.loop
        incarnation = self.begin()
        if self.config.cluster.policy_place == "learner":
            return self._own_policy_learner(found)
        if not peers.policy_learners:
            return None
        begun, own = None, ray.get_runtime_context().get_node_id()
        nodes = self.gathered(own)
        if self.rank == 0:
            state = to_arrays(found.policy) if found is not None and found.policy else None
            slots_at = [nodes[slot % self.world_size] for slot in range(self.num_slots)]
            begun = begin_with(
                peers,
                incarnation,
                state,
                slots_at=slots_at if loop.source == "learner" else [""] * self.num_slots,
                timeout_s=self.timeout_s,
            )
        places, shards_at = broadcast_from_rank_zero(begun)
        parts = {
            "incarnation": incarnation,
            "peers": peers,
            "places": places,
            "beside": shard_beside(own, self.rank, shards_at),
            "rank": self.rank,
            "version": position.policy_version,
            "max_staleness": loop.max_staleness,
            "timeout_s": self.timeout_s,
        }
        if loop.source == "workers":
            return WorkerFedClient(
                per_update=loop.mae_steps_per_update, publish_every=loop.publish_every, **parts
            )
        return RayPolicyClient(**parts)

    def _own_policy_learner(self, found: checkpoints.Checkpoint | None) -> PolicyClient | None:
        """Beside the MAE, on its device: rollouts are handed over as the tensors they are.

        Of several ranks, each learns from its own, and they average their gradients.
        """
        config = self.config
        policy = build_policy(config.sampler, config.model, self.grid, seed=config.seed)
        if not is_learned(policy):
            return None
        policy.to(self.device)
        clips = config.clips_per_rollout * len(self.batches.slots)
        use_faster_form(policy, clips, self.grid.num_tokens, config.loop.precision, self._note)
        self._compiler("the policy").policy(policy)
        group: Group = ALONE
        if self.world_size > 1:
            share = len(self.batches.slots) / self.num_slots
            group = RankGroup(share=share, timeout_s=self.timeout_s)
        learner = PolicyLearner(
            policy,
            config.algorithm.build(policy),
            seed=config.seed,
            precision=config.loop.precision,
            group=group,
        )
        if found is not None and found.policy:
            learner.load_state_dict(found.policy)
        return LocalPolicyClient(learner, max_staleness=config.loop.max_staleness)

    def _loop(self, position: Position) -> PretrainLoop:
        config = self.config
        policy = build_policy(config.sampler, config.model, self.grid, seed=config.seed)
        if self.client is not None:
            assert is_learned(policy)
            policy.load_state_dict(dict(self.client.current()))
            policy.to(self.device)
        main = self._stage(policy, num_visible(config.sampler, self.grid))
        loop = PretrainLoop(
            config.loop,
            seed=config.seed,
            slots=self.batches.slots,
            batches=self.batches,
            learner=self.learner,
            warmup=self._warmup(main),
            main=main,
            client=self.client,
            hooks=_Hooks(self),
            masks_per_clip=config.algorithm.masks_per_clip,
        )
        loop.at = position
        return loop

    def _warmup(self, main: Stage) -> Stage:
        kind = self.config.loop.warmup_mask
        if kind == "learned":
            return main
        sampler = replace(self.config.sampler, name=kind, options={})
        policy = build_policy(sampler, self.config.model, self.grid, seed=self.config.seed)
        return self._stage(policy, num_visible(sampler, self.grid))

    def _stage(self, policy: MaskPolicy, count: int) -> Stage:
        env = make_env(self.config, self.learner, self.config.optim.batch_size, count)
        return Stage(policy, env, count)

    def read_buffer(self) -> dict[str, float]:
        """Metrics of the buffer, on rank 0."""
        if self.rank != 0 or not self.peers.shards:
            return {}
        shards = [shard.read.remote() for shard in self.peers.shards]
        found = ray.get(shards, timeout=self.timeout_s)
        read = {name: sum(one[name] for one in found) for name in found[0]}
        if self.peers.desk is not None:
            read |= ray.get(self.peers.desk.read.remote(), timeout=self.timeout_s)
        return read

    def blamed(self, error: NonFiniteError) -> str:
        clips = clips_in_words(error, self.config, self.batches, self.lists.train)
        return f"{super().blamed(error)}; {clips}"

    def save(self, loop: PretrainLoop, validation_error: float | None = None) -> Path | None:
        """Write a checkpoint, on rank 0; the memory must be empty."""
        if self.is_sharded or self.rank == 0:
            mae = self.learner.state_dict()
        if self.rank != 0:
            return None
        policy = self.client.state_dict() if self.client is not None else None
        if policy is not None:  # asked for last, so it holds all updates that were under way
            loop.at.policy_version = policy["numbers"]["version"]
        state = checkpoints.Checkpoint(
            position=loop.at,
            mae=mae,
            policy=policy,
            config_yaml=dump_config(self.config),
            validation_error=validation_error,
        )
        keep = self.config.checkpoint
        return self.persist(
            lambda: checkpoints.save(
                self.run_folder, state, keep_last=keep.keep_last, keep_best=keep.keep_best
            ),
            step=loop.at.step,
        )


class _Hooks:
    """What happens around the recipe: metrics, measures, checkpoints, the wish to stop."""

    def __init__(self, rank: _Rank) -> None:
        self.rank = rank
        self.config = rank.config
        is_asked = rank.rank == 0 or rank.is_sharded
        self.evaluator = evaluator(rank.config, rank.lists.val) if is_asked else None
        if self.evaluator is not None:
            rank.tell_unreadable(self.evaluator.validation.unreadable)
        self._scalars: dict[str, list[Scalar]] = {}
        """Of the steps since the last record, where they are."""
        self._clips = ClipCount(rank, rank.config.data.max_bad_share)
        self._wants_stop = False

    def on_step(
        self, loop: PretrainLoop, metrics: Mapping[str, float], batches: Sequence[Batch]
    ) -> None:
        self._gather(metrics)
        for batch in batches:
            self._clips.add(batch)
        self.rank.reached(loop.at.step)
        if loop.at.step % self.config.log.every_steps == 0:
            self._record(loop)
        # After an epoch's last step, `on_epoch` has rows to tell before it can be saved.
        is_whole = not loop.num_pending and not self.rank.learner.pending
        if self._wants_stop and is_whole and loop.at.batch < self.rank.batches.steps_per_epoch:
            loop.drain()
            self.rank.save(loop)
            raise Halt(f"stopped after step {loop.at.step}")

    def on_epoch(self, loop: PretrainLoop) -> None:
        last = loop.at.epoch == self.config.loop.epochs
        is_stopped = self._wants_stop and not last
        is_measured = last or self._is_due(loop, self.config.eval.every_epochs)
        is_saved = last or is_stopped or self._is_due(loop, self.config.checkpoint.every_epochs)
        if is_measured or is_saved:
            loop.drain()
        self._gather(loop.flushed)
        if last and self._clips.shown:
            self._record(loop)
        validation_error = None
        if self.evaluator is not None and is_measured:
            measures = self.evaluator.measure(self.rank.learner.mae, loop.main.policy)
            named = {f"eval/{name}": value for name, value in measures.items()}
            self.rank.tell_metrics(loop.at, named)
            if loop.at.epoch > self.config.loop.mae_only_epochs and self.rank.client is not None:
                num_tokens = self.rank.learner.mae.grid.num_tokens
                for sign in collapse_signs(
                    measures, num_visible=loop.main.num_visible, num_tokens=num_tokens
                ):
                    self.rank.tell("note", text=f"the policy looks collapsed: {sign}")
            validation_error = measures["error"]
        if is_saved:
            self.rank.save(loop, validation_error)
        if is_stopped:
            raise Halt(f"stopped after step {loop.at.step}")

    def _gather(self, metrics: Mapping[str, float]) -> None:
        for name, value in unread(metrics).items():
            self._scalars.setdefault(name, []).append(value)

    @staticmethod
    def _is_due(loop: PretrainLoop, every_epochs: int) -> bool:
        return every_epochs > 0 and loop.at.epoch % every_epochs == 0

    def _record(self, loop: PretrainLoop) -> None:
        """Means since the last record, over all slots where that says more."""
        loop.settle()
        values = iter(fetch([value for values in self._scalars.values() for value in values]))
        means = {
            name: sum(islice(values, len(gathered))) / len(gathered)
            for name, gathered in self._scalars.items()
        }
        weight = len(loop.slots) * self.rank.learner.weight
        for name in ("mae/loss", "env/reward"):
            means[name] = self.rank.sum(means[name] * weight) / self.rank.world_size
        means |= self._clips.read(loop.stopwatch)
        self._scalars = {}
        means |= self.rank.read_buffer()
        self.rank.tell_metrics(loop.at, means)
        self._clips.check(loop.at.step)
        self._wants_stop = self.rank.asks_to_stop() or self._wants_stop
