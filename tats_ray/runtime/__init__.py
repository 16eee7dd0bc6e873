"""The same run over many processes. Ray enters the project here and nowhere else.

| Room | What it is | Talks to |
|---|---|---|
| `buffer.RolloutBuffer` | actor; rollouts on their way, bounded in bytes | all |
| `weights.WeightStore` | actor; newest weights by name and version | all |
| `policy_learner.PolicyLearnerActor` | actor; owns policy and algorithm | buffer, store |
| `pretrain_worker.train_loop` | Ray Train worker per rank; owns the autoencoder | all |
| `run_log.RunLog` | actor; events to the driver, and its wish to stop | driver |
| `launch` | the driver: places, starts, watches and stops all of them | |
"""
