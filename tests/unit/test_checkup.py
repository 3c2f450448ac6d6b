import platform

import pytest

from selfinstruct.checkup import DoctorConfig, describe, doctor
from selfinstruct.embedded import weights

CANARY = "sk-canary-0123456789"


@pytest.fixture(scope="module")
def well():
    """The report on this machine, with a key set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", CANARY)
        patch.setenv("HF_TOKEN", CANARY)
        return doctor(DoctorConfig())


@pytest.fixture(scope="module")
def unwell(tmp_path_factory):
    """The report where libraries do not load, packages, weights and keys are missing, and one package is old."""
    folder = tmp_path_factory.mktemp("broken")
    metadata = folder / "selfinstruct-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.1\nName: selfinstruct\nVersion: 9.9.9\n"
        "Requires-Dist: pydantic<999,>=998.1\n"
        "Requires-Dist: no-such-package>=2; extra == 'train'\n"
        "Requires-Dist: for-another-python; python_version < '3.1'\n"
        "Requires-Dist: for-developers; extra == 'dev'\n"
    )
    (folder / "torch.py").write_text("raise ImportError('libcudart.so: cannot open shared object file')")
    (folder / "xllamacpp.py").write_text("import os; os.abort()")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("SELFINSTRUCT_EMBEDDED_GGUF", str(folder / "none.gguf"))
        patch.setenv("SELFINSTRUCT_CACHE", str(folder / "cache"))
        patch.delenv("OPENAI_API_KEY", raising=False)
        return doctor(DoctorConfig())


def check(report, name):
    return next(check for check in report.checks if check.name == name)


def test_what_a_machine_has(well):
    import torch

    assert check(well, "Python").found == platform.python_version()
    assert check(well, "PyTorch").found.startswith(torch.__version__)
    assert check(well, "weights").found == str(weights())
    assert check(well, "llama.cpp server").ok
    assert all(check.ok for check in well.checks)


def test_remedies_are_for_what_is_not_well(well, unwell):
    assert all(check.remedy for check in unwell.checks if not check.ok)
    assert "->" not in describe(well)


def test_keys_are_never_shown(well):
    assert check(well, "OPENAI_API_KEY").found == check(well, "HF_TOKEN").found == "set"
    assert CANARY not in describe(well) + repr(well)


def test_a_missing_key(unwell):
    key = check(unwell, "OPENAI_API_KEY")
    assert (key.ok, key.found, key.needed_for) == (False, "not set", "an LLM API")


def test_packages_are_those_that_the_distribution_requires(unwell):
    assert check(unwell, "selfinstruct").found == "9.9.9"
    old = check(unwell, "pydantic")
    assert not old.ok
    assert "older than 998.1" in old.found
    missing = check(unwell, "no-such-package")
    assert (missing.found, missing.needed_for) == ("not installed", "training and evaluation")
    assert missing.remedy == "pip install 'selfinstruct[train]'"
    assert {"for-another-python", "for-developers"}.isdisjoint(check.name for check in unwell.checks)


def test_libraries_that_do_not_load(unwell):
    assert check(unwell, "PyTorch").found.endswith("libcudart.so: cannot open shared object file")
    assert check(unwell, "llama.cpp server").found == "does not load: exit code -6"


def test_missing_weights(unwell):
    assert not check(unwell, "weights").ok
    assert "none.gguf" in check(unwell, "weights").remedy


def test_in_words(well, unwell):
    assert "For the embedded model: ready" in describe(well)
    assert "For the embedded model: not ready" in describe(unwell)
    assert describe(unwell).count("not ok") == sum(not check.ok for check in unwell.checks)
