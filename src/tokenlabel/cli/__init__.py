"""The command line: one keyword-only function per verb."""
