"""Threadline: a self-hosted agent service. LangGraph conversations, streamed, kept and replayable."""

__version__ = "0.1.0"
