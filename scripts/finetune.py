"""`finetune train` for several devices: accelerate launch scripts/finetune.py [train] --data ... --out ..."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# This file's own folder comes first otherwise, and in it this file would be taken for the package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from finetune.cli import GROUP  # noqa: E402
from selfinstruct.command import run_program  # noqa: E402

if __name__ == "__main__":
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (the main process speaks for all)
    arguments = sys.argv[1:] if sys.argv[1:2] == ["train"] else ["train", *sys.argv[1:]]
    sys.exit(run_program(GROUP, "finetune", arguments))
