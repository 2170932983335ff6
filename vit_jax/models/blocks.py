"""A model's equal blocks, one after the other: looped over or scanned.

A scan compiles one block instead of all of them. It goes over parameters that
are stacked, as a training state with `scan_layers` has them; files, and all
that reads them, have the published layout, block by block.
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, jaxpr_as_fun

from vit_jax import errors

MakeBlock = Callable[..., nn.Module]

# What the backward pass finds saved, by name; the rest is computed again.
# 'dots' are the products with weights, those among activations aside.
REMATS = {
  'none': jax.checkpoint_policies.everything_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}
# 'encoderblock_0', 'encoderblock_1' and so on become one 'encoderblock'.
_STACKS = ('encoderblock', 'MixerBlock')
_BLOCK = re.compile(rf'({"|".join(_STACKS)})_(\d+)')


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a model's parameters with those of its blocks stacked.

  Args:
    params: nested, in the published layout; numpy's arrays give numpy's.

  Returns:
    The same, but for blocks: 'Transformer/encoderblock_0' and so on, each
    [...], are 'Transformer/encoderblock' [layers, ...]; likewise 'MixerBlock'.
  """
  found, blocks = {}, {}
  for name, node in params.items():
    match = _BLOCK.fullmatch(name)
    if match:
      blocks.setdefault(match[1], {})[int(match[2])] = node
    else:
      found[name] = stack_layers(node) if isinstance(node, Mapping) else node
  for name, by_number in blocks.items():
    layers = [by_number[i] for i in range(len(by_number))]
    found[name] = jax.tree.map(_stack, *layers)
  return found


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns parameters in the published layout; undoes `stack_layers`.

  Args:
    params: nested; what is not stacked stays as it is. Of numpy's arrays the
      layers are views, which take no memory.
  """
  found = {}
  for name, node in params.items():
    if name in _STACKS:
      for i in range(len(jax.tree.leaves(node)[0])):
        found[f'{name}_{i}'] = jax.tree.map(lambda x, i=i: x[i], node)
    else:
      found[name] = unstack_layers(node) if isinstance(node, Mapping) else node
  return found


def _stack(*leaves: Any) -> Any:
  are_numpy = all(isinstance(leaf, np.ndarray) for leaf in leaves)
  return np.stack(leaves) if are_numpy else jnp.stack(leaves)


def apply_blocks(
  parent: nn.Module,
  make_block: MakeBlock,
  names: Sequence[str],
  x: jax.Array,
  *,
  train: bool,
  remat: str,
  scan_layers: bool,
  drop_path_rates: Sequence[float] = (),
) -> jax.Array:
  """Returns `x` after all blocks; to be called in a compact `__call__`.

  With the same parameters and keys the result is the same whatever `remat` and
  `scan_layers` say, up to rounding, dropout included.

  Args:
    parent: whose blocks they are.
    make_block: takes what any module takes, and a `drop_path_rate` where there
      are any, and returns a block that maps `x` and `train` to the shape of
      `x`; all have the same parameters.
    names: of the blocks.
    x: [batch, tokens, width].
    train: whether to drop, and whether `remat` says anything: there is nothing
      to save without a backward pass.
    remat: one of `REMATS`.
    scan_layers: whether to scan. Not so while parameters are made or
      intermediates are asked for, as these have a place for each block.
    drop_path_rates: of the blocks, () if none has one.

  Raises:
    ConfigError: the parameters are stacked, and there is no scan.
  """
  remat = remat if train else 'none'
  params = parent.variables.get('params', {})
  stacked = params.get(names[0].rpartition('_')[0])
  is_watched = parent.is_mutable_collection('intermediates')
  if scan_layers and not (parent.is_initializing() or is_watched):
    if stacked is None:  # Whoever reads a file need not know of a scan.
      stacked = jax.tree.map(_stack, *(params[name] for name in names))
    return _scan(
      parent, make_block, names, stacked, x, drop_path_rates, train, remat
    )
  if stacked is not None:
    raise errors.ConfigError(
      'The parameters of the blocks are stacked, as a training state with '
      'config.scan_layers has them. They go with a model that scan_layers is '
      'set for, where no intermediates are asked for; for others, '
      'vit_jax.models.blocks.unstack_layers(params) takes them apart.'
    )

  def call(block, x):
    return block(x, train=train)

  if remat != 'none':
    call = nn.remat(call, policy=REMATS[remat])
  for i, name in enumerate(names):
    if drop_path_rates:
      make_block = functools.partial(
        make_block, drop_path_rate=drop_path_rates[i]
      )
    x = call(make_block(name=name), x)
  return x


def _scan(parent, make_block, names, params, x, drop_path_rates, train, remat):
  rates = drop_path_rates or [0.0] * len(names)
  # One block stands for all; its own rate only tells whether to drop at all.
  own = {'drop_path_rate': max(rates)} if drop_path_rates else {}
  block = make_block(**own, parent=None)
  sites = _dropout_sites(block, params, x) if train else []
  layers = {
    'params': params,
    'keys': _keys(parent, names, sites) if sites else None,
    'keep': jnp.array([1 - rate for rate in rates], jnp.float32),
  }

  def call(x, layer):
    with nn.intercept_methods(_replay(layer['keys'], layer['keep'])):
      return block.apply({'params': layer['params']}, x, train=train), None

  if remat != 'none':
    # A loop keeps apart what is computed again by itself.
    call = jax.checkpoint(call, policy=REMATS[remat], prevent_cse=False)
  return jax.lax.scan(call, x, layers)[0]


def _dropout_sites(
  block: nn.Module, params: Any, x: jax.Array
) -> list[tuple[str, ...]]:
  """Returns the path inside a block of every dropout, in the order of calls.

  Args:
    block: one for all.
    params: of all, stacked.
    x: what enters it.
  """
  sites = []

  def interceptor(next_fn, args, kwargs, context):
    if _is_dropping(context):
      sites.append(context.module.path)
      return args[0]
    return next_fn(*args, **kwargs)

  with nn.intercept_methods(interceptor):
    jax.eval_shape(
      lambda params, x: block.apply({'params': params}, x, train=True),
      jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), params
      ),
      x,
    )
  return sites


def _keys(
  parent: nn.Module, names: Sequence[str], sites: Sequence[Sequence[str]]
) -> jax.Array:
  """Returns the dropout keys of blocks that are not there.

  Args:
    parent: whose blocks they would be.
    names: of the blocks.
    sites: paths inside of each.

  Returns:
    Keys [names, sites], or uint32 [names, sites, 2] where the model was given
    a key of that kind.
  """
  scopes = []
  for name in names:
    for site in sites:
      scope: Any = parent.scope
      for part in (name, *site):
        scope = scope.push(part, reuse=True)
      scopes.append(scope)
  one_by_one = jax.make_jaxpr(
    lambda: [scope.make_rng('dropout') for scope in scopes]
  )()
  numbers = _folded_numbers(one_by_one.jaxpr)
  if numbers is None:
    keys = jnp.stack(jaxpr_as_fun(one_by_one)())
  else:  # The same keys all at once: one by one, each takes 40 ms to compile.
    (key,) = one_by_one.consts
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array(numbers))
  return keys.reshape(len(names), len(sites), *keys.shape[1:])


def _folded_numbers(jaxpr: Any) -> list[np.uint32] | None:
  """Returns what is folded into the one key that a program starts from.

  Args:
    jaxpr: of a program that gives keys.

  Returns:
    The numbers in the order of the keys; None where it does anything else.
  """
  numbers = []
  for eqn, out in itertools.zip_longest(jaxpr.eqns, jaxpr.outvars):
    if eqn is None or eqn.primitive.name != 'random_fold_in':
      return None
    key, number = eqn.invars
    is_plain = [key] == jaxpr.constvars and eqn.outvars == [out]
    if not is_plain or not isinstance(number, Literal):
      return None
    numbers.append(number.val)
  return numbers


def _replay(keys: jax.Array | None, keep: jax.Array) -> Callable[..., Any]:
  """Returns an interceptor that drops by given keys.

  Args:
    keys: [dropouts], in the order of calls.
    keep: float32 [], chance that a branch is kept: it is another one in each
      block, which a module's rate can't be.
  """
  calls = iter(range(0 if keys is None else len(keys)))

  def interceptor(next_fn, args, kwargs, context):
    if not _is_dropping(context):
      return next_fn(*args, **kwargs)
    assert keys is not None
    key = keys[next(calls)]
    if not context.module.broadcast_dims:
      return next_fn(*args, **kwargs, rng=key)
    (x,) = args
    shape = (len(x), *[1] * (x.ndim - 1))
    is_kept = jax.random.bernoulli(key, keep, shape)
    return jnp.where(is_kept, x / keep.astype(x.dtype), jnp.zeros_like(x))

  return interceptor


def _is_dropping(context: Any) -> bool:
  module = context.module
  return (
    isinstance(module, nn.Dropout)
    and context.method_name == '__call__'
    and not module.deterministic
    and module.rate > 0
  )
