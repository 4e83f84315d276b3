"""A client without training: add noise to every weight."""

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    """Return the weights with noise."""
    state = message.content["arrays"].to_torch_state_dict()
    moved = {name: value + 0.01 * torch.randn_like(value) for name, value in state.items()}
    metrics = MetricRecord({"num-examples": 2, "loss": 1.0})
    return Message(RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    """Read the weights and score nothing."""
    message.content["arrays"].to_torch_state_dict()
    metrics = MetricRecord({"num-examples": 2, "dice": 1.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
