"""Alembic's scripts for the history database."""
