"""The fuzz campaign: `make fuzz`; `__main__` says what is tried and judged."""
