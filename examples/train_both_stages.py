"""Train at one site without a federation: stage 1 on benign images, stage 2 on outlined lesions."""

import sys
from pathlib import Path

import torch
from phantom_data import phantom_folders, tiny_plan

from mamfed_client import Site, load_site
from mamfed_common import (
    Checkpoint,
    CheckpointFacts,
    RoundContext,
    Stage,
    build_network,
    evaluate,
    save_checkpoint,
    state_of,
    summarise,
    train,
)


def main(folder: Path) -> Path:
    """Train on a phantom hospital below ``folder``; return the checkpoint."""
    plan, device = tiny_plan(), torch.device("cpu")
    data = phantom_folders(folder / "data")["aurora"]
    site = load_site(Site("aurora", (("aurora", data),), folder / "cache"), plan)

    state, painter = state_of(build_network(plan.network, plan.seed)), None
    for stage in Stage:
        images, benign = site.training(plan, stage)
        for number in range(1, plan.stage(stage).rounds + 1):
            context = RoundContext(site.name, number)
            result = train(stage, state, images, plan, context, device=device, benign=benign)
            print(f"{stage} round {number}: loss {result.loss:.4f}")
            state = result.state
        painter = painter or state  # the weights after stage 1 redraw healthy tissue

    scores = evaluate(state, site.samples(["malignant"], "test"), plan, device=device)
    print("mean Dice on test patients:", summarise(scores).dice)

    path = folder / "model.safetensors"
    facts = CheckpointFacts(
        plan=plan, plan_sha256=plan.sha256(), stage=Stage.FINETUNING, server_round=number
    )
    save_checkpoint(path, Checkpoint(state, facts, painter))
    return path


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
