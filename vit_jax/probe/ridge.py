"""Ridge regression onto classes, as big_vision's few-shot evaluator has it.

google-research/big_vision, `evaluators/fewshot_lsr.py`: features are
standardised by mean and deviation of the examples that are fitted, a constant
100 is added so that the bias is hardly regularised, the targets of the classes
are 1 for the right one and -1 for the others, and l2 is 2**10. It computes in
float32; this is float64, in numpy.
"""

from collections.abc import Iterator, Sequence

import numpy as np

BIAS = 100.0
EPSILON = 1e-5  # Added to the deviation.
L2 = 2.0**10
# From which leaving one out chooses.
L2_CHOICES = tuple(2.0**exponent for exponent in range(-10, 21, 2))
_BLOCK = 8192


def draw_shots(
  labels: np.ndarray, num_classes: int, shots: int, seed: int
) -> np.ndarray:
  """Returns the indices of examples drawn by chance, as many of each class.

  Those of fewer shots are the first of each class of those of more. A class
  with fewer examples gives all that it has. For equal labels they are the
  examples that big_vision draws.

  Args:
    labels: [n], in [0, num_classes).
    num_classes: whose examples are drawn in turn.
    shots: of each class.
    seed: of the draw.
  """
  rng = np.random.default_rng(seed)
  return np.concatenate([
    rng.permutation(np.flatnonzero(labels == label))[:shots]
    for label in range(num_classes)
  ])  # fmt: skip


class Ridge:
  """A fit that is decomposed once for all strengths of the regularisation.

  With `q diag(eigs) q^T` either of `x^T x` or, where there are fewer examples
  than features, of `x x^T`, the weights are `lhs diag(1 / (eigs + l2)) rhs`.
  """

  def __init__(
    self, features: np.ndarray, labels: np.ndarray, num_classes: int
  ):
    """Standardises and decomposes.

    Args:
      features: [n, num_features], n > 0.
      labels: [n], in [0, num_classes).
      num_classes: also those that have no example.
    """
    self._features = features
    self._labels = labels
    self._num_classes = num_classes
    self._mean = features.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(self._mean)
    for rows in _blocks(len(features)):
      squares += ((features[rows] - self._mean) ** 2).sum(axis=0)
    self._std = np.sqrt(squares / len(features)) + EPSILON
    num_inputs = features.shape[1] + 1
    self._is_dual = len(features) < num_inputs
    if self._is_dual:
      x = self._inputs(features)
      eigs, self._q = np.linalg.eigh(x @ x.T)
      self._lhs, self._rhs = x.T @ self._q, self._q.T @ self._targets(labels)
    else:
      gram = np.zeros((num_inputs, num_inputs))
      moment = np.zeros((num_inputs, num_classes))
      for rows in _blocks(len(features)):
        x = self._inputs(features[rows])
        gram += x.T @ x
        moment += x.T @ self._targets(labels[rows])
      eigs, self._lhs = np.linalg.eigh(gram)
      self._rhs = self._lhs.T @ moment
    self._eigs = np.maximum(eigs, 0)  # Rounding may put them below.

  def _inputs(self, features: np.ndarray) -> np.ndarray:
    """Returns float64 [n, num_features + 1], standardised, with the bias."""
    x = (features - self._mean) / self._std
    return np.concatenate([x, np.full((len(x), 1), BIAS)], axis=1)

  def _targets(self, labels: np.ndarray) -> np.ndarray:
    """Returns [n, num_classes], 1 for the right class and -1 elsewhere."""
    return 2.0 * (labels[:, None] == np.arange(self._num_classes)) - 1.0

  def weights(self, l2: float) -> np.ndarray:
    """Returns float64 [num_features + 1, num_classes], the bias' row last."""
    return (self._lhs / (self._eigs + l2)) @ self._rhs

  def predict(self, features: np.ndarray, l2: float) -> np.ndarray:
    """Returns the likeliest class of each of [n, num_features]."""
    weights = self.weights(l2)
    return np.concatenate([
      (self._inputs(features[rows]) @ weights).argmax(axis=1)
      for rows in _blocks(len(features))
    ])  # fmt: skip

  def leave_one_out(self, l2s: Sequence[float] = L2_CHOICES) -> np.ndarray:
    """Returns how far off each example is of a fit to all the others.

    That takes no further fit: its residual is divided by 1 - its leverage (the
    PRESS statistic; Allen 1974). Mean and deviation stay those of all.

    Args:
      l2s: strengths, above zero.

    Returns:
      [len(l2s)]: mean of the squared error over examples and classes.
    """
    errors = np.zeros(len(l2s))
    for rows in _blocks(len(self._features)):
      z = self._inputs(self._features[rows]) @ self._lhs
      targets = self._targets(self._labels[rows])
      shares = self._q[rows] ** 2 * self._eigs if self._is_dual else z**2
      for i, l2 in enumerate(l2s):
        scale = 1 / (self._eigs + l2)
        residuals = targets - (z * scale) @ self._rhs
        residuals /= 1 - (shares @ scale)[:, None]
        errors[i] += (residuals**2).sum()
    return errors / (len(self._features) * self._num_classes)

  def choose_l2(self, l2s: Sequence[float] = L2_CHOICES) -> float:
    """Returns the strength of which `leave_one_out` is least."""
    return l2s[int(self.leave_one_out(l2s).argmin())]


def _blocks(num_rows: int) -> Iterator[slice]:
  for start in range(0, num_rows, _BLOCK):
    yield slice(start, start + _BLOCK)
