"""The built-in agent: a LangGraph project like any other."""
