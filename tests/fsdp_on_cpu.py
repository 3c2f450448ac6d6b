"""`scripts/finetune.py` with FSDP on CPUs, which accelerate turns on for GPUs only: its state is told by hand."""

from __future__ import annotations

import sys

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from finetune.cli import GROUP
from selfinstruct.command import run_program

made = AcceleratorState.__init__


def make(self: AcceleratorState, *arguments: object, fsdp_plugin: object = None, **options: object) -> None:
    made(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


AcceleratorState.__init__ = make
if __name__ == "__main__":
    sys.exit(run_program(GROUP, "finetune", ["train", *sys.argv[1:]]))
