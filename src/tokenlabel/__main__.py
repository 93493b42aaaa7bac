"""`python -m tokenlabel`, which is also how torchrun starts it."""

from tokenlabel.cli import main

if __name__ == "__main__":
    main()
