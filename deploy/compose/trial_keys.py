"""The secrets of a trial installation: made once, in a folder that git ignores.

    trial_keys.py          make those that are not there yet
    trial_keys.py --tell   say where everything answers, with a token for each role

Containers run as users of their own and get each secret as a file, so the files can be read by all
while their folder can be entered by its owner alone. The key that signs tokens stays with its owner
and goes to no container. Where an identity provider signs tokens, RAPPORT_AUTH_JWKS_URL takes the
key set's place.
"""

import secrets
import sys
from pathlib import Path
from typing import Final

from rapport.common.auth import Signer, write_secret
from rapport.standalone.system import PEOPLE, keys

FOLDER: Final = Path(__file__).resolve().parent / "secrets" / "keys"
SHARED: Final = ("verify.json", "person_key", "status_key", "grafana_password")


def make(folder: Path) -> Signer:
    """Make what is not there yet."""
    signer = Signer.open(folder)
    keys(folder)
    if not (folder / "grafana_password").exists():
        write_secret(folder / "grafana_password", secrets.token_urlsafe(18))
    folder.chmod(0o700)
    for name in SHARED:
        (folder / name).chmod(0o444)
    return signer


def tell(signer: Signer) -> None:
    """Say where everything answers."""
    print("Rapport answers at http://127.0.0.1:8080 (its document: /openapi.json)")
    print("e-mail http://127.0.0.1:8025, Prometheus http://127.0.0.1:9090, Kafka 127.0.0.1:9092")
    print(f"Grafana http://127.0.0.1:3000 (to change things: admin, {FOLDER}/grafana_password)\n")
    print("A token for each role, to try things with:")
    for role, subject in PEOPLE.items():
        print(f"  {role:<10} {subject:<9} {signer.mint(subject, [role])}")


if __name__ == "__main__":
    opened = make(FOLDER)
    if "--tell" in sys.argv[1:]:
        tell(opened)
