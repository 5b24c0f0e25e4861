"""The JSON Schema that the C++ kit is built with."""

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[3]


def _tool() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("manifest_schema", str(REPOSITORY / "tools" / "manifest_schema"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_schema_in_the_tree_is_that_of_the_manifest() -> None:
    tool = _tool()
    assert tool.TARGET.read_text(encoding="utf-8") == tool.manifest_schema(), "run tools/manifest_schema"


def test_the_schema_of_profiles_is_that_of_the_record() -> None:
    tool = _tool()
    assert tool.PROFILE_TARGET.read_text(encoding="utf-8") == tool.profile_schema(), "run tools/manifest_schema"
