"""The program `selfinstruct`: generate a data set, look at it, hand it on, or run everything from one recipe."""

from __future__ import annotations

import sys

from selfinstruct.command import LazyCommand, LazyGroup, run_program

GROUP = LazyGroup(
    {
        "run": LazyCommand(
            "selfinstruct.recipe", "run", "RunConfig", "Generate, train, evaluate, compare and report from one recipe.",
            arguments=("recipe",),
        ),
        "demo": LazyCommand("selfinstruct.recipe", "demo", "DemoConfig", "Run everything on the embedded model."),
        "generate": LazyCommand(
            "selfinstruct.generation", "generate", "GenerateConfig",
            "Generate an instruction data set through an LLM API.",
        ),
        "status": LazyCommand(
            "selfinstruct.run_status", "status", "StatusConfig", "Show progress, yield and cost of a run.",
            arguments=("run",),
        ),
        "templates": LazyCommand(
            "selfinstruct.templating", "templates", "TemplatesConfig",
            "Turn labelled data into instruction data through written templates, without a teacher.",
            arguments=("source",),
        ),
        "refilter": LazyCommand(
            "selfinstruct.refiltering", "refilter", "RefilterConfig",
            "Judge a run's candidates again with other filters; no request is made.", arguments=("run",),
        ),
        "novelty": LazyCommand(
            "selfinstruct.novelty_filter", "judge_novelty", "NoveltyConfig",
            "Mark the rows of any data set that are too similar to others before them.", arguments=("source",),
        ),
        "export": LazyCommand(
            "selfinstruct.formats", "export", "ExportConfig", "Write a run's data set in another format.",
            arguments=("run",),
        ),
        "card": LazyCommand(
            "selfinstruct.dataset_card", "card", "CardConfig", "Write the card (README.md) of a run's data set.",
            arguments=("run",),
        ),
        "report": LazyCommand(
            "selfinstruct.report_page", "report", "ReportConfig", "Write one HTML page about a run.",
            arguments=("run", "others"),
        ),
        "doctor": LazyCommand(
            "selfinstruct.checkup", "doctor", "DoctorConfig", "Say what this machine has, what is missing, what to do."
        ),
    },
    help="Generate an instruction data set from a few seed tasks through an LLM API, filtered for novelty by ROUGE-L.",
    distribution="selfinstruct",
)  # fmt: skip


def main() -> None:
    """Run the program and end with its exit code."""
    sys.exit(run_program(GROUP, "selfinstruct"))


if __name__ == "__main__":
    main()
