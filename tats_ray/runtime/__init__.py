"""The same run over many processes. Ray enters the project here and nowhere else.

| Room | What it is | Talks to |
|---|---|---|
| `rollout_buffer.RolloutBuffer` | actor; rollouts on their way, bounded in bytes | all |
| `ticket_desk.TicketDesk` | actor; who may begin a rollout, and which buffer takes it | workers |
| `weight_store.WeightStore` | actor; newest weights by name and version | all |
| `policy_learner_actor.PolicyLearnerActor` | actor; owns policy and algorithm | buffer, store |
| `pretrain_worker.train_loop` | Ray Train worker per rank; owns the autoencoder | all |
| `run_log.RunLog` | actor; events to the driver, and its wish to stop | driver |
| `launch` | the driver: places, starts, watches and stops all of them | |
"""
