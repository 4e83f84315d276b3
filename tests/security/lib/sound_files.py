"""One sound file of each kind that mamfed reads, small, made by mamfed's own writers."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[3]
sys.path[:0] = [
    str(ROOT / "tests" / "unit" / folder) for folder in ("client/annotations", "client")
]

from mamfed_client.disclosure.audit_log import AuditLog  # noqa: E402
from mamfed_client.disclosure.plan_store import PlanStore  # noqa: E402
from mamfed_client.imaging.geometry import Transform  # noqa: E402
from mamfed_client.preparation.sample_store import SampleStore  # noqa: E402
from mamfed_client.site import identity  # noqa: E402
from mamfed_client.site.settings import SiteHome  # noqa: E402
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, save_checkpoint  # noqa: E402
from mamfed_common.model.config import NetworkConfig  # noqa: E402
from mamfed_common.model.malignancy_net import build_network  # noqa: E402
from mamfed_common.model.state_dict import state_of  # noqa: E402
from mamfed_common.plan import (  # noqa: E402
    FinetuningPlan,
    PersonalPlan,
    Stage,
    StagePlan,
    TrainingPlan,
)
from mamfed_common.security.enrolment import write_document  # noqa: E402
from mamfed_common.transforms.sample import Sample  # noqa: E402
from mamfed_server.admission import approval, certificate_authority  # noqa: E402
from mamfed_server.settings import ServerHome, ServerSettings, settings_text  # noqa: E402

PLAN = TrainingPlan(
    image_size=32,
    network=NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1),
    pretraining=StagePlan(rounds=1, local_epochs=1, batch_size=2, learning_rate=1e-3),
    finetuning=FinetuningPlan(rounds=2, local_epochs=1, batch_size=2, learning_rate=1e-3),
    personal=PersonalPlan(steps=0),
)
DIGEST = "ab" * 32
SITE_YAML = "name: north\ndata:\n  - {name: a, folder: images}\n"
TABLE = "image,patient_id,pathology,laterality\na.dcm,P1,malignant,L\nb.dcm,P2,benign,R\n"


class Material(NamedTuple):
    """A coordinator's and a site's home, and files of both; all sound."""

    folder: Path
    server: ServerHome
    site: SiteHome
    checkpoint: Path


def make(folder):
    """Write one file of each kind below a folder."""
    server, site = ServerHome(folder / "server"), SiteHome(folder / "site")
    for path in (server.path, site.path, folder / "files"):
        path.mkdir(parents=True, mode=0o700)
    settings = ServerSettings(name="North", hosts=("localhost",), contact="+33 1")
    server.settings_path.write_text(settings_text(settings))
    certificate_authority.make_authority(server, settings.name)
    certificate_authority.make_plan_key(server)
    certificate_authority.issue_server(server, settings.hosts, settings.certificate_days)
    identity.make_keys(site)
    site.settings_path.write_text(SITE_YAML)
    request = identity.build_request(site, "north", "+33 2")
    write_document(site.request, request)
    welcome = approval.approve(server, request)
    identity.join(site, welcome)
    store = PlanStore(site.path / "plans")
    store.remember(PLAN)
    store.decide(PLAN.sha256(), "approved")
    log = AuditLog(site.path / "audit.jsonl")
    for number in range(4):
        log.append("train", stage="finetuning", round=number + 1, values={"loss": 0.5})
    checkpoint = folder / "files" / "best.safetensors"
    save_checkpoint(checkpoint, new_checkpoint())
    add_sample(folder / "samples")
    return Material(folder, server, site, checkpoint)


def new_checkpoint(server_round=1):
    """Return an untrained checkpoint of a round of stage 2."""
    facts = CheckpointFacts(
        plan=PLAN,
        plan_sha256=PLAN.sha256(),
        stage=Stage.FINETUNING,
        server_round=server_round,
    )
    return Checkpoint(state_of(build_network(PLAN.network, server_round)), facts, None)


def add_sample(folder, key=None):
    """Write a sample; return its store."""
    rng, store = np.random.default_rng(0), SampleStore(folder, key)
    breast = rng.random((32, 32)) < 0.5
    image = rng.integers(0, 65536, (32, 32), dtype=np.uint16)
    transform = Transform(
        rows=64, columns=32, top=0, bottom=64, left=0, right=32, flipped=False, size=32
    )
    store.add(DIGEST, Sample(image, breast, breast & (image < 9000), ""), transform)
    return store


def annotations(folder):
    """Write one annotation of each text format; return their paths."""
    import formats

    polygon = np.array([[4, 4], [20, 4], [20, 20], [4, 20]])
    regions, size, image = [("mass", polygon)], (32, 32), ("a.dcm", "1.2.3")
    writers = {
        "via.json": formats.write_via_json,
        "via.csv": formats.write_via_csv,
        "inbreast.xml": formats.write_xml,
        "seg.dcm": formats.write_dicom_mask,
        "report.dcm": formats.write_report,
    }
    for name, write in writers.items():
        write(folder / name, regions, size, image)
    coco = {
        "images": [{"id": 1, "file_name": "a.dcm", "height": 32, "width": 32}],
        "categories": [{"id": 1, "name": "mass"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[4, 4, 20, 4, 20, 20]]}],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    return [folder / name for name in (*writers, "coco.json")]
