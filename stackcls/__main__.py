"""`python -m stackcls`."""

from stackcls.cli import main

main()
