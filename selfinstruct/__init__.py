"""Generate an instruction data set from seed tasks through an LLM API, filtered for novelty by ROUGE-L.

One function a command, of the same name (`judge_novelty` for `novelty`, which is a package here); each takes its
configuration and returns its result:

    from selfinstruct import GenerateConfig, generate
    summary = generate(GenerateConfig(out=Path("runs/first"), num_instructions=24))

Names are imported when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfinstruct.checkup import DoctorConfig as DoctorConfig
    from selfinstruct.checkup import doctor as doctor
    from selfinstruct.dataset_card import CardConfig as CardConfig
    from selfinstruct.dataset_card import card as card
    from selfinstruct.formats import ExportConfig as ExportConfig
    from selfinstruct.formats import export as export
    from selfinstruct.generation import GenerateConfig as GenerateConfig
    from selfinstruct.generation import generate as generate
    from selfinstruct.novelty_filter import NoveltyConfig as NoveltyConfig
    from selfinstruct.novelty_filter import judge_novelty as judge_novelty
    from selfinstruct.recipe import DemoConfig as DemoConfig
    from selfinstruct.recipe import RunConfig as RunConfig
    from selfinstruct.recipe import demo as demo
    from selfinstruct.recipe import run as run
    from selfinstruct.refiltering import RefilterConfig as RefilterConfig
    from selfinstruct.refiltering import refilter as refilter
    from selfinstruct.report_page import ReportConfig as ReportConfig
    from selfinstruct.report_page import report as report
    from selfinstruct.run_status import StatusConfig as StatusConfig
    from selfinstruct.run_status import status as status
    from selfinstruct.templating import TemplatesConfig as TemplatesConfig
    from selfinstruct.templating import templates as templates

_HOMES = {
    "generation": ("generate", "GenerateConfig"),
    "run_status": ("status", "StatusConfig"),
    "templating": ("templates", "TemplatesConfig"),
    "refiltering": ("refilter", "RefilterConfig"),
    "novelty_filter": ("judge_novelty", "NoveltyConfig"),
    "formats": ("export", "ExportConfig"),
    "dataset_card": ("card", "CardConfig"),
    "report_page": ("report", "ReportConfig"),
    "checkup": ("doctor", "DoctorConfig"),
    "recipe": ("run", "RunConfig", "demo", "DemoConfig"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"selfinstruct.{module}"), name)
    raise AttributeError(f"module 'selfinstruct' has no attribute '{name}'")
