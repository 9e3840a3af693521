"""``python -m eventbus``: the command line."""

from eventbus.cli.main import main

if __name__ == "__main__":
    main()
