"""The `rapport` command line."""

from rapport.standalone.cli import rapport


def main() -> None:
    """Run the command line."""
    rapport()


if __name__ == "__main__":
    main()
