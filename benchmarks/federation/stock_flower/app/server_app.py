"""Run FedAvg, first without and then with evaluation, and record when each round ends."""

import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    """Run the rounds of one exchange, then those of two."""
    config = context.run_config
    count = int(config["megabytes"] * 1e6 / 4 / 8)
    arrays = ArrayRecord({f"w{i}": torch.randn(count) for i in range(8)})
    for rounds, fraction in ((config["trained"], 0.0), (config["evaluated"], 1.0)):
        strategy = Noted(
            fraction_evaluate=fraction,
            min_train_nodes=2,
            min_evaluate_nodes=2,
            min_available_nodes=2,
        )
        strategy.path = Path(config["ends"])
        strategy.start(grid, arrays, num_rounds=int(rounds), timeout=120)


class Noted(FedAvg):
    """Appends the time at which each round ends to a file."""

    def aggregate_train(self, server_round, replies):
        """Aggregate, which ends a round without an evaluation."""
        found = super().aggregate_train(server_round, replies)
        if not self.fraction_evaluate:
            self.note()
        return found

    def aggregate_evaluate(self, server_round, replies):
        """Aggregate, which ends a round with one."""
        found = super().aggregate_evaluate(server_round, replies)
        if self.fraction_evaluate:
            self.note()
        return found

    def note(self):
        """Write the time."""
        with self.path.open("a") as handle:
            handle.write(f"{time.time()}\n")
