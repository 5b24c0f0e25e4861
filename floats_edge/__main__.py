"""``python -m floats_edge``, and with torchrun ``-m floats_edge``: the command line."""

from floats_edge.cli.main import main

if __name__ == "__main__":
    main()
