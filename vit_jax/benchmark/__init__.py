"""Measures steps, many settings in a row: images/s, memory, compilation."""
