import ast
import sys
from pathlib import Path

import tripswitch_gateway

ROOT = Path(tripswitch_gateway.__file__).parent
BASE = {"tripswitch_gateway", "confluent_kafka", "joserfc"}
EXTRAS = {"demo": {"aiohttp"}, "guard": {"uvicorn"}, "litellm": {"litellm", "fastapi"}}


def test_every_exported_name_is_there() -> None:
    assert sorted(tripswitch_gateway.__all__, key=str.lower) == sorted(set(tripswitch_gateway.__all__), key=str.lower)
    for name in tripswitch_gateway.__all__:
        assert getattr(tripswitch_gateway, name) is not None


def test_the_base_install_needs_nothing_else() -> None:
    for file in ROOT.rglob("*.py"):
        allowed = BASE | EXTRAS.get(file.parent.name, set()) | sys.stdlib_module_names
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {module.split(".")[0] for module in modules} <= allowed, file.name
