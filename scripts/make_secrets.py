"""Draw the secrets of docker-compose.prod.yml: a file for each, in deploy/secrets.

What is there already is kept: the databases remember theirs. Example: `make secrets`
"""

import secrets
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "deploy" / "secrets"


def drawn() -> dict[str, str]:
    owner, app = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    return {
        "postgres_owner_password": owner,
        "postgres_app_password": app,
        "migration_database_url": f"postgresql://picopay_owner:{owner}@postgres:5432/picopay",
        "database_url": f"postgresql://picopay:{app}@postgres:5432/picopay",
        "redis_password": secrets.token_urlsafe(32),
        "app_api_key": f"pk_{secrets.token_urlsafe(32)}",
        "admin_secret": secrets.token_urlsafe(32),
        "payment_webhook_secret": secrets.token_urlsafe(32),
        "transaction_webhook_secret": secrets.token_urlsafe(32),
        "grafana_admin_password": secrets.token_urlsafe(32),
    }


def main(folder: Path) -> None:
    if folder.exists():
        sys.exit(f"{folder} exists: its secrets are kept")
    # Only the owner may enter the folder. The files are mounted one by one into containers, whose
    # users have other numbers than the owner: they are readable to whoever has got so far.
    folder.mkdir(mode=0o700)
    for name, secret in drawn().items():
        path = folder / name
        path.write_text(secret + "\n")
        path.chmod(0o444)
        print(path)


if __name__ == "__main__":
    main(FOLDER)
