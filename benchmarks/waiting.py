"""A training step of the demo's network while another process wants a core: threads that sleep
while they wait (``OMP_WAIT_POLICY=PASSIVE``, what mamfed's commands set) beside threads that spin.

Usage: python benchmarks/waiting.py [--steps 20]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

STEP = """
import time, torch
from mamfed_common.unet import NetworkConfig, UNet
network = UNet(NetworkConfig(channels=(16, 32, 64, 128, 128), first_skip_level=2, stem=1))
def step():
    torch.autograd.backward(network(torch.rand(4, 1, 128, 128)).square().mean())
step()
started = time.perf_counter()
for _ in range({steps}):
    step()
print((time.perf_counter() - started) / {steps} * 1000)
"""


def milliseconds(policy: str, steps: int) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, "-c", STEP.format(steps=steps)]
    return float(subprocess.check_output(command, env=environment, text=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    for busy in (False, True):
        rival = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            spin, sleep = (milliseconds(p, arguments.steps) for p in ("", "PASSIVE"))
        finally:
            if rival:
                rival.kill()
        state = "with a rival" if busy else "undisturbed"
        print(
            f"{state:<13} spinning {spin:7.1f} ms, sleeping {sleep:7.1f} ms: {spin / sleep:.2f} x"
        )


if __name__ == "__main__":
    main()
