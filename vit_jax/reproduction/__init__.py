"""The paper's fine-tuning table: its cells, their runs, what came out."""
