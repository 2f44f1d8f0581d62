"""Servers the tests start on loopback in place of what the service talks to."""
