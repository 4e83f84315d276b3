from mamfed_common.checkpoint import Checkpoint as Checkpoint
from mamfed_common.checkpoint import CheckpointFacts as CheckpointFacts
from mamfed_common.checkpoint import load_checkpoint as load_checkpoint
from mamfed_common.checkpoint import save_checkpoint as save_checkpoint
from mamfed_common.errors import MamfedError as MamfedError
from mamfed_common.metrics.scores import summarise as summarise
from mamfed_common.metrics.site_score import SiteScore as SiteScore
from mamfed_common.model.malignancy_net import MalignancyNetwork as MalignancyNetwork
from mamfed_common.model.malignancy_net import build_network as build_network
from mamfed_common.model.state_dict import state_of as state_of
from mamfed_common.plan import Stage as Stage
from mamfed_common.plan import TrainingPlan as TrainingPlan
from mamfed_common.plan import parse_plan as parse_plan
from mamfed_common.plan import read_plan as read_plan
from mamfed_common.plan.norm_groups import expected_state as expected_state
from mamfed_common.training.batches import RoundContext as RoundContext
from mamfed_common.training.inference import evaluate as evaluate
from mamfed_common.training.inference import load_network as load_network
from mamfed_common.training.inference import predict as predict
from mamfed_common.training.stages import train as train
from mamfed_common.transforms.sample import Sample as Sample

__version__: str
