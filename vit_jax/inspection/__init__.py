"""What a weight file is: its family, sizes, model, and how to fine-tune it."""

from vit_jax.inspection.description import Description, describe

__all__ = ['Description', 'describe']
