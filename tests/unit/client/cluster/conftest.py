"""One round on a site's disk, and the executors that may compute it."""

import pytest
from tests.conftest import blob_sample

from mamfed_client.cluster.dispatcher import Dispatcher
from mamfed_client.cluster.job_executor import JobExecutor
from mamfed_client.cluster.job_folder import jobs_of
from mamfed_client.cluster.orders import Orders
from mamfed_client.imaging.geometry import Transform
from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.preparation.sample_store import SampleStore, digest
from mamfed_client.site.hardware import Hardware
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage, StagePlan
from mamfed_common.training.batches import RoundContext

HARDWARE = Hardware("cpu", threads=1)
WHERE = Transform(rows=32, columns=32, top=0, bottom=32, left=0, right=32, flipped=False, size=32)


class OnDisk(StoredSamples):
    """Samples in a site's cache."""

    def __init__(self, folder, samples):
        store = SampleStore(folder)
        names = [digest(sample.name, "", None, 32, 0) for sample in samples]
        self.entries = [
            (sample.name, store.add(name, sample, WHERE))
            for name, sample in zip(names, samples, strict=True)
        ]

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, index):
        name, entry = self.entries[index]
        return entry.load(name)

    def entry(self, index):
        return self.entries[index]


class Round:
    """The round of a site: images, weights and plan; ``train`` and ``evaluate`` by an executor."""

    def __init__(self, folder, plan):
        stage = StagePlan(rounds=2, local_epochs=1, batch_size=2, learning_rate=1e-2).model_dump()
        self.plan = plan.changed(pretraining=stage, finetuning=stage)
        self.samples = OnDisk(folder, [blob_sample(seed) for seed in range(3)])
        benign = [blob_sample(seed, malignant=False) for seed in range(50, 52)]
        self.benign = OnDisk(folder, benign)
        self.state = state_of(build_network(self.plan.network, 0))

    def train(self, executor, *, server_round=1, stage=Stage.FINETUNING, **more):
        context = RoundContext("here", server_round)
        return executor.train(
            stage, self.state, self.samples, self.plan, context, benign=self.benign, **more
        )

    def evaluate(self, executor, **more):
        return executor.evaluate(self.state, self.samples, self.plan, **more)


@pytest.fixture
def site_round(tmp_path, tiny_plan):
    return Round(tmp_path / "cache", tiny_plan)


@pytest.fixture
def jobs(tmp_path):
    return jobs_of(tmp_path / "shared", "here", "rounds")


@pytest.fixture
def executor_with(jobs):
    """Return executors of one site, each as a node that has just started."""

    def make(queue, *, queue_seconds=60.0, on_state=lambda words: None):
        dispatcher = Dispatcher(
            jobs, queue, queue_seconds=queue_seconds, on_state=on_state, arrival_seconds=0.5
        )
        return JobExecutor(dispatcher, Orders("here", HARDWARE, 0.0))

    return make
