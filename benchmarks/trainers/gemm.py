"""The fastest matrix product of this machine: what the shares of peak are shares of."""

from __future__ import annotations

import time

import torch

from benchmarks.trainers.job import job

SIZES = (1024, 2048)
REPEATS = 5


def main() -> None:
    """Print the best rate over sizes and repetitions, in FLOP/s."""
    given = job()
    torch.set_num_threads(given.threads)
    device, dtype = ("cuda", torch.bfloat16) if given.on_gpu else ("cpu", torch.float32)
    best = 0.0
    for size in (4096, 8192) if given.on_gpu else SIZES:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(REPEATS):
            begin = time.perf_counter()
            a @ b
            if given.on_gpu:
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    print(best)


if __name__ == "__main__":
    main()
