"""The alerts as they are shipped, and what tells whether one is still what was seen."""

import hashlib
import json
from typing import Any

import yaml

from tests.prove.stack import DEMO, RULES


def alerts() -> dict[str, list[dict[str, Any]]]:
    """Return the rules of each alert, in the files' order; one name may stand for several severities."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in [*sorted(RULES.glob("*.yml")), DEMO]:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    found.setdefault(rule["alert"], []).append(rule)
    return found


def fingerprints() -> dict[str, str]:
    """Return a short digest of each alert's rules: of when it fires and of its labels, and not of its texts."""
    return {
        name: _digest([[rule["expr"], rule.get("for"), rule["labels"]] for rule in found])
        for name, found in alerts().items()
    }


def _digest(found: object) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]
