"""Which unit tests are slow: they train, start processes or prepare whole folders."""

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
SLOW = (
    "client/annotations/test_mask_classes.py",
    "client/cli/test_enrol.py",
    "client/cli/test_models.py",
    "client/datasets/test_cbis.py",
    "client/datasets/test_other_files.py",
    "client/disclosure/test_privacy_ledger.py",
    "client/disclosure/test_survey.py",
    "client/end_to_end/",
    "client/evaluation/",
    "client/imaging/test_doubts.py",
    "client/models/",
    "client/node/test_client_app.py",
    "client/node/test_executor.py",
    "client/node/test_preflight.py",
    "client/node/test_private_round.py",
    "client/node/test_supernode.py",
    "client/plausibility/test_masks.py",
    "client/prediction/test_geometry.py",
    "client/prediction/test_in_browser.py",
    "client/prediction/test_list_of_studies.py",
    "client/prediction/test_pages.py",
    "client/prediction/test_predict.py",
    "client/prediction/test_question.py",
    "client/prediction/test_real_files.py",
    "client/prediction/test_segmentation.py",
    "client/prediction/test_twelve_sources.py",
    "client/preparation/test_cohort.py",
    "client/preparation/test_data_check.py",
    "client/preparation/test_data_prepare.py",
    "client/preparation/test_overlap.py",
    "client/preparation/test_patients.py",
    "client/preparation/test_real_data.py",
    "client/review/",
    "client/sandbox/test_decoder.py",
    "client/training/test_devices.py",
    "common/runtime/test_file_kinds.py",
    "common/runtime/test_optional_packages.py",
    "common/runtime/test_process_supervisor.py",
    "common/training/test_data_parallel.py",
    "common/training/test_optimizer_state.py",
    "common/training/test_round_checkpoint.py",
    "common/training/test_worker_processes.py",
    "server/cli/test_main.py",
    "server/export/",
    "server/fleet/test_listener.py",
    "server/report/test_data.py",
    "server/report/test_in_browser.py",
    "server/run/test_approved_roster.py",
    "server/run/test_redo.py",
    "server/run/test_requests.py",
    "server/run/test_resume.py",
    "server/run/test_state.py",
    "server/run/test_training_round.py",
    "server/service/",
    "server/strategy/test_server_optimizer.py",
    "simulations/cli/",
    "simulations/comparison/",
    "simulations/federation/",
    "simulations/phantoms/test_corpus.py",
    "simulations/phantoms/test_phantom.py",
    "simulations/study/",
)
"""Files and folders of which a test takes more than a second of CPU time, or all together about
three."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(UNIT):
            place = item.path.relative_to(UNIT).as_posix()
            if place.startswith(SLOW):
                item.add_marker(pytest.mark.slow)
