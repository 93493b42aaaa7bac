"""`python -m tokenlabel`, and so `torchrun -m tokenlabel`."""

from tokenlabel.cli import main

main()
