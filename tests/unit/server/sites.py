"""Three sites whose training is easy to follow, and transports that lose, delay and restart."""

from collections import Counter, defaultdict

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import State, state_of, state_sha256
from mamfed_common.protocol.messages import pack, unpack_body, unpack_weights
from mamfed_common.protocol.quantization import update_to_send
from mamfed_common.protocol.tasks import EvaluateTask, SiteDescription, TrainReport, TrainTask
from mamfed_server.run.run import Job, run_job
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.in_process import InProcessTransport

NAMES = ("ada", "bea", "cleo")
NODES = {name: number for number, name in enumerate(NAMES, start=1)}
IMAGES = {"ada": 10, "bea": 20, "cleo": 30}


def description(site: str, *, benign: int | None = None, malignant: int | None = None):
    images = {
        "benign": {"train": IMAGES[site] if benign is None else benign},
        "malignant": {
            "train": IMAGES[site] if malignant is None else malignant,
            "val": 1,
            "test": 1,
        },
    }
    return SiteDescription(
        site=site, images=images, patients={}, rows=9, rejected={}, left_out={}, vendors={}
    )


def step(state: State, site: str) -> State:
    """Training that is easy to follow: add the site's number to every weight."""
    return {name: tensor + NAMES.index(site) for name, tensor in state.items()}


def score(dice: float | None = 0.5, **changes) -> SiteScore:
    values = {
        "images": 1,
        "dice": dice,
        "lesions": 1,
        "lesions_found": 1,
        "images_without_malignancy": 0,
        "false_positive_pixels": None,
    }
    return SiteScore.model_validate(values | changes)


class Sites:
    """A ClientApp of three honest sites; tests replace single answers."""

    def __init__(self):
        self.train_answer = {}
        self.query_answer = {}
        self.descriptions = {site: description(site) for site in NAMES}
        self.val_dice = {}
        self.trained = []
        self.asked = []

    def app(self) -> ClientApp:
        app = ClientApp()
        app.query()(self.query)
        app.train()(self.train)
        app.evaluate()(self.evaluate)
        return app

    def query(self, message: Message, context: Context) -> Message:
        site = self.name(context)
        self.asked.append(site)
        if site in self.query_answer:
            return self.query_answer[site](message)
        return Message(pack(self.descriptions[site]), reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        site = self.name(context)
        task = unpack_body(message.content, TrainTask)
        self.trained.append((site, str(task.stage), task.server_round))
        expected = state_of(MalignancyNetwork(task.plan.network))
        start = unpack_weights(message.content, task, expected)
        state = step(start, site)
        used = self.descriptions[site].images_used(task.plan, task.stage)
        report = TrainReport(num_examples=used, loss=0.25)
        if site in self.train_answer:
            return self.train_answer[site](message, task, state)
        sent = update_to_send(state, start, task.plan.federation.wire)
        return Message(pack(report, sent), reply_to=message)

    def evaluate(self, message: Message, context: Context) -> Message:
        task = unpack_body(message.content, EvaluateTask)
        round_dice = self.val_dice.get(self.name(context), [0.5])
        dice = round_dice.pop(0) if task.part == "val" and len(round_dice) > 1 else round_dice[0]
        return Message(pack(score(dice)), reply_to=message)

    @staticmethod
    def name(context: Context) -> str:
        return NAMES[context.node_config["partition-id"]]


class Scripted(InProcessTransport):
    """An in-process transport whose nodes fail as a test says.

    Attributes:
        away: Nodes that are not connected.
        starts: How often each node has started.
        errors: Codes with which the next requests to a node are answered, the first first.
        silent: Nodes whose requests of these types are never answered.
        delays: How many looks pass before a node's answers come.
        on_pull: Called with the node before a request of its is answered.
    """

    def __init__(self, sites: Sites):
        super().__init__(sites.app(), len(NAMES))
        self.away = set()
        self.starts = Counter()
        self.errors = defaultdict(list)
        self.silent = {}
        self.delays = {}
        self.on_pull = lambda node, message: None
        self.forgotten = []
        self.pushed = []
        self._looks = Counter()

    def online(self):
        return {n: f"start {self.starts[n]}" for n in super().online() if n not in self.away}

    def push(self, node_id, message_type, content, ttl_seconds):
        assert ttl_seconds > 0
        if node_id in self.away:
            return None
        self.pushed.append((node_id, message_type))
        return super().push(node_id, message_type, content, ttl_seconds)

    def pull(self, message_id):
        message = self._waiting.get(message_id)
        if message is None:
            return None
        node = message.metadata.dst_node_id
        self._looks[message_id] += 1
        if message.metadata.message_type in self.silent.get(node, ()) or (
            self._looks[message_id] <= self.delays.get(node, 0)
        ):
            return None
        self.on_pull(node, message)
        if message_id not in self._waiting:
            return None  # lost, with a node that has just restarted
        if self.errors[node] and message.metadata.message_type == "train":
            self._waiting.pop(message_id)
            return Message(Error(self.errors[node].pop(0), "SECRET words"), reply_to=message)
        return super().pull(message_id)

    def forget(self, message_ids):
        ids = list(message_ids)
        self.forgotten += ids
        super().forget(ids)

    def restart(self, node):
        """Lose what the node was asked, as Flower does where it comes back at once."""
        self.starts[node] += 1
        lost = [i for i, m in self._waiting.items() if m.metadata.dst_node_id == node]
        for message_id in lost:
            self._waiting.pop(message_id)


def run(sites: Sites, plan, folder, transport=None, **job) -> RunFolder:
    """Run a simulation of the three sites."""
    transport = transport or InProcessTransport(sites.app(), len(NAMES))
    run_job(Job(plan=plan, folder=folder, num_nodes=len(NAMES), **job), transport)
    return RunFolder(folder)


def final(folder: RunFolder, name: str = "final") -> str:
    """Return the SHA-256 of the weights that a run ended with."""
    return state_sha256(load_checkpoint(folder.checkpoint_path(name)).state)


def with_stages(plan, **values):
    """Return a plan with some values of both stages replaced."""
    stages = {
        name: {**getattr(plan, name).model_dump(), **values}
        for name in ("pretraining", "finetuning")
    }
    return plan.changed(**stages)


def with_federation(plan, **values):
    """Return a plan with some values of its federation replaced."""
    return plan.changed(federation={**plan.federation.model_dump(), **values})
