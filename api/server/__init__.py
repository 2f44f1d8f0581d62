"""The LangGraph Server API: what LangGraph Studio and the `langgraph_sdk` clients speak."""
