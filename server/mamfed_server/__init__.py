"""What the coordinator runs: the two-stage round loop and its run folder; never an image.

The names below are the public Python API (``docs/python-api.md``); each is imported on first use.
"""

from mamfed_common.runtime.lazy import lazy_names

_NAMES = {
    "FedAvg": "mamfed_server.strategy.fedavg",
    "Job": "mamfed_server.run.job",
    "RoundUpdates": "mamfed_server.strategy.protocol",
    "RunFolder": "mamfed_server.run_folder.folder",
    "Strategy": "mamfed_server.strategy.protocol",
    "StrategyContext": "mamfed_server.strategy.protocol",
    "TrainAggregate": "mamfed_server.strategy.protocol",
    "TrainInstructions": "mamfed_server.strategy.protocol",
    "make_server_app": "mamfed_server.run.server_app",
    "run_job": "mamfed_server.run.run",
}
__all__ = [*_NAMES]
__getattr__ = lazy_names(__name__, _NAMES)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
