"""`python -m sr_exporter` is the command `sr-exporter`."""

from sr_exporter.entry import main

if __name__ == "__main__":
    main()
