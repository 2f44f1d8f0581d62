"""Composition root: settings, wiring, server and command line."""
