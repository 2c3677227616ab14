"""The ``foveal`` command."""

from foveal.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
