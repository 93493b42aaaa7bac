"""The command line: one keyword-only function per verb."""

from tokenlabel.cli.main import main as main
