"""The shared words: errors, events, records and ports. Standard library and langgraph types only."""
