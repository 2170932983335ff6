"""What classes are called: by a run, a file, a data set, or ImageNet."""

from vit_jax.class_names.finding import Names, of_user, of_weights
from vit_jax.class_names.imagenet import readable, wnids

__all__ = ['Names', 'of_user', 'of_weights', 'readable', 'wnids']
