"""One node per file: plain async functions that return only what they changed."""
