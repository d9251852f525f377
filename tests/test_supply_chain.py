"""What comes from others: every locked package is on a bill of materials, and free to use.

No list of known weaknesses comes with the repository, so nothing here looks for any;
docs/security.md says how that is done where there is a network.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, Final

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = {"standalone": ROOT / "requirements.lock"} | {
    service.name: service / "requirements.lock" for service in (ROOT / "services").iterdir()
}

PERMISSIVE: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0"),
        *("PSF-2.0", "Zlib"),
    }
)
"""Licences that ask for nothing but their notice."""

OLD_NAMES: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
}
"""How packages that do not name an SPDX licence call theirs."""

EXCUSED: Final = {
    "certifi": "MPL-2.0, a list of certificates that is passed on as it is",
}
"""Packages under another licence, and why that is no harm."""


def locked(lock: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield what a lock names: package, version, digests."""
    for entry in re.split(r"\n(?=\S)", lock.read_text("utf-8")):
        found = re.match(r"([\w.-]+)==([^\s;\\]+)", entry)
        if found:
            yield found[1], found[2], re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The bills of materials by name, as `make sbom` writes them."""
    return written(tmp_path_factory.mktemp("sbom"))


def written(folder: Path) -> Mapping[str, str]:
    """Write the bills of materials and return them."""
    subprocess.run(["make", "-o", "install", "sbom", f"SBOM={folder}"], cwd=ROOT, check=True)
    return {file.stem: file.read_text("utf-8") for file in folder.iterdir()}


def test_there_is_a_bill_for_each_service_and_for_all_in_one(bills: Mapping[str, str]) -> None:
    assert bills.keys() == LOCKS.keys()


@pytest.mark.parametrize("name", LOCKS)
def test_a_bill_is_valid_and_lists_every_package_with_version_and_digests(
    name: str, bills: Mapping[str, str]
) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bills[name]) is None
    listed = {
        (item["name"], item["version"]): digests(item)
        for item in document(bills[name])["components"]
    }
    entries = list(locked(LOCKS[name]))
    assert len(entries) > 20
    assert all(found for _, _, found in entries)
    assert listed == {(package, version): set(found) for package, version, found in entries}


def document(bill: str) -> dict[str, Any]:
    """Return a bill as JSON."""
    found: dict[str, Any] = json.loads(bill)
    return found


def digests(component: dict[str, Any]) -> set[str]:
    """Return the SHA-256 of each file that a component may be installed from."""
    return {
        digest["content"]
        for reference in component["externalReferences"]
        for digest in reference.get("hashes", ())
        if digest["alg"] == "SHA-256"
    }


def test_a_bill_is_the_same_whenever_it_is_written(
    bills: Mapping[str, str], tmp_path: Path
) -> None:
    assert written(tmp_path) == bills


def licences(package: str) -> set[str]:
    """Return the licences of an installed package; an alternative counts as the one we take."""
    about = metadata(package)
    names = about.get_all("License-Expression") or about.get_all("License") or [""]
    told = names[0]
    classified = [
        kind.rpartition(" :: ")[2]
        for kind in about.get_all("Classifier", [])
        if kind.startswith("License ::") and not kind.endswith("OSI Approved")
    ]
    if not told or "\n" in told:
        return {OLD_NAMES.get(kind, kind) for kind in classified}
    parts = [part.strip(" ()") for part in told.split(" AND ")]
    return {taken(part) for part in parts}


def taken(choice: str) -> str:
    """Return the licence that we take of several."""
    names = [OLD_NAMES.get(name.strip(), name.strip()) for name in choice.split(" OR ")]
    return next((name for name in names if name in PERMISSIVE), choice)


def test_every_package_that_we_ship_may_be_used_freely() -> None:
    checked = 0
    others = {}
    for package in sorted({name for name, _, _ in locked(LOCKS["standalone"])}):
        try:
            found = licences(package)
        except PackageNotFoundError:
            continue  # for another system than this one
        checked += 1
        if not found or not found <= PERMISSIVE:
            others[package] = found
    assert checked > 40
    assert others.keys() == EXCUSED.keys(), others
