"""Set up, start, stop and check the whole: what the Makefile calls. Standard library only."""
