"""The real library is told from the stub by its files; nothing of it is run."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from neurodeploy.errors import DeviceError
from neurodeploy.targets.dynapcnn import samna_package
from neurodeploy.targets.dynapcnn.samna_adapter import load_samna


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "samna", raising=False)
    return tmp_path


def package(site, text="raise SystemError('imported')\n"):
    (site / "samna").mkdir()
    (site / "samna" / "__init__.py").write_text(text)
    return site / "samna"


def test_missing_says_what_to_install_and_from_where(site):
    with pytest.raises(DeviceError, match="not installed") as caught:
        load_samna()
    assert (caught.value.code, caught.value.exit_code) == ("samna-missing", 3)
    assert samna_package.VENDOR_INDEX in caught.value.remedy


def test_the_stub_is_refused_and_not_imported(site):
    package(site)
    info = site / "samna-0.48.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: samna\nVersion: 0.48.6\n")
    (info / "RECORD").write_text("samna/__init__.py,,\nsamna-0.48.6.dist-info/METADATA,,\n")
    with pytest.raises(DeviceError, match="no compiled module") as caught:
        load_samna()
    assert caught.value.code == "samna-stub"
    assert "samna" not in sys.modules


def test_a_listed_file_that_is_not_there_does_not_count(site):
    package(site)
    info = site / "samna-0.48.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: samna\nVersion: 0.48.6\n")
    (info / "RECORD").write_text(f"samnacpp{EXTENSION_SUFFIXES[0]},,\n")
    with pytest.raises(DeviceError, match="no compiled module"):
        samna_package.require_samna()
    (site / f"samnacpp{EXTENSION_SUFFIXES[0]}").write_bytes(b"")  # the compiled part may lie beside the package
    samna_package.require_samna()


def test_a_package_with_a_compiled_module_is_imported(site):
    folder = package(site, "marker = 1\n")
    (folder / f"core{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    assert load_samna().marker == 1
    sys.modules.pop("samna")


def test_a_library_that_does_not_load_is_one_message(site):
    folder = package(site)
    (folder / f"core{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    with pytest.raises(DeviceError, match="does not load: imported") as caught:
        load_samna()
    assert caught.value.code == "samna-import"
