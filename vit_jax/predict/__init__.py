"""Labels images with any checkpoint, a batch at a time.

opened = trained.load('runs/a')
for each in predict.predict(opened, ['a.png', 'https://example.org/b.jpg']):
  print(each.error or each.top(5))
"""

from vit_jax.predict.naming import with_names
from vit_jax.predict.predicting import Prediction, predict
from vit_jax.predict.writing import Lines, Table

__all__ = ['Lines', 'Prediction', 'Table', 'predict', 'with_names']
