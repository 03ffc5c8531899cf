"""`python -m tutelage` is the command line."""

from tutelage.cli.app import main

main()
