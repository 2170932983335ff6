"""Data sets that are a folder of images with a folder for each class.

Either PATH/train/CLASS/IMAGE and PATH/test/CLASS/IMAGE (or val, validation), or
PATH/CLASS/IMAGE, which `splits` splits. A class folder may have folders in it.
"""

import difflib
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from vit_jax import errors
from vit_jax.data import decode, images, manifest, paths, scan, splits
from vit_jax.data.files import Files, Listing, Paths
from vit_jax.data.sources import Source, make_fingerprint

_MAX_TOLD = 5  # Of many classes in a message.
_NUM_THREADS = 8  # A disk across a network answers several at once.


def load_source(config: Any, split: str) -> Source:
  """Lists one split of the folder or manifest that `config.dataset` is.

  Classes are those of the training split, sorted by name in the order of
  Unicode's code points. Images are in the order of their classes and paths;
  those of a manifest, in its own.

  Args:
    config: with the fields `dataset` and `follow_links` (whether symbolic links
      may lead out of the folder); `pp.train` and `pp.test` tell how a folder
      that is not split is, see `splits.resolve`.
    split: such as 'test' or 'train[:90%]'.

  Returns:
    Its `split` says in full what was chosen; its images stay encoded.

  Raises:
    ConfigError: there is no such split, or no image in it.
    DataNotFoundError: there is no such folder or manifest, or no image in it.
    DataError: it has one class only, one that the training split lacks, links
      that lead out of it, or bad lines.
  """
  path = os.path.expanduser(config.dataset)
  where = decode.shown(config.dataset)
  if paths.is_manifest(path) and not os.path.isdir(path):
    place, found = os.path.dirname(path), manifest.read(path)
  else:
    place, found = path, _Tree(path, bool(config.get('follow_links', False)))
  parts = splits.resolve(split, found.splits, config, where)
  class_names = found.class_names()
  _check_classes(class_names, where)
  names, labels = _choose(parts, found.list_images, class_names, where)
  chosen = splits.to_text(parts)
  if not names:
    raise errors.ConfigError(
      f'{where}: no image is in {chosen!r}. Where one is, a hash of its name '
      'tells, so few images may all be elsewhere: take more percent.'
    )
  _warn_of_absent(labels, class_names, f'{where}, {chosen}')
  files = Paths(place, names)
  return Source(
    name=config.dataset,
    split=chosen,
    class_names=tuple(class_names),
    labels=labels,
    records=Files(files, labels),
    paths=files,
    # Wherever the folder is, and however its disk spells the names.
    fingerprint=make_fingerprint(
      len(names),
      splits.canonical('\0'.join(names)),
      labels.astype('<i4').tobytes(),
      '\0'.join(class_names),
    ),
  )


class _Tree:
  """A folder on disk.

  Attributes:
    splits: {'train': its folder's name, ...}; empty if it is not split.
  """

  def __init__(self, path: str, follow_links: bool):
    if not os.path.isdir(path):
      raise errors.DataNotFoundError(_no_folder_text(path))
    self._path = path
    self._follow_links = follow_links
    self.splits = _find_splits(path)

  def class_names(self) -> list[str]:
    """Returns the classes of the training split that have an image, sorted."""
    found = self._scan('train')
    classes = found.classes()

    def has_image(places: Sequence[str]) -> bool:
      return any(next(found.walk(place), '') for place in places)

    with futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
      has_images = [*pool.map(has_image, classes.values())]
    found.check_links()
    filled = [*itertools.compress(classes, has_images)]
    empty = {*classes} - {*filled}
    if empty:
      shown = decode.shown(self._place('train'))
      scan.warn_once(
        f'{shown}: left out {scan.count(empty, "folder")} without an image: '
        f'{scan.listing(empty)}.'
      )
    return filled

  def list_images(self, base: str) -> Listing:
    """Returns all images of a split, or of the folder if it is not split."""
    found = self._scan(base)
    classes = found.classes()

    def list_class(places: Sequence[str]) -> list[str]:
      inside = sorted(path for place in places for path in found.walk(place))
      if not all(map(str.isascii, inside)):
        inside.sort(key=splits.canonical)
      return inside

    with futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
      lists = [*pool.map(list_class, classes.values())]
    found.check_links()
    found.report_others()
    name = self.splits.get(base, '')
    return Listing(
      names=list(itertools.chain.from_iterable(lists)),
      prefix=name and f'{name}/',
      classes=list(itertools.compress(classes, lists)),
      class_index=np.repeat(
        np.arange(sum(map(bool, lists))), [len(each) for each in lists if each]
      ),
    )

  def _place(self, base: str) -> str:
    return os.path.join(self._path, self.splits.get(base, ''))

  def _scan(self, base: str) -> scan.Scan:
    return scan.Scan(
      self._path, self._place(base), follow_links=self._follow_links
    )


def _no_folder_text(path: str) -> str:
  if not os.path.exists(path):
    problem, remedy = 'is not there', ''
  else:
    ending = os.path.splitext(path)[1]
    problem = f'is a file that ends in {ending!r}' if ending else 'is a file'
    remedy = paths.OTHER_FILES.get(paths.other_file(path), '')
  return (
    f'config.dataset={path!r} {problem}. Expected a folder with a folder of '
    'images for each class, or a list of images that ends in '
    f'{", ".join(paths.MANIFEST_SUFFIXES)}.{remedy and f" {remedy}."}'
  )


def _find_splits(path: str) -> dict[str, str]:
  """Tells a folder of splits from one of classes; see `_Tree.splits`."""
  inside = scan.folders(path)
  found: dict[str, str] = {}
  for name in inside:
    base = splits.NAMES.get(name.lower(), '')
    if base in found:
      raise errors.DataError(
        f'{decode.shown(path)} has {found[base]!r} and {name!r}, which are the '
        'same split. Rename or remove one.'
      )
    if base:
      found[base] = name
  others = [name for name in inside if name not in found.values()]
  # Among others it may be a class, of trains, unless it has folders itself.
  if others:
    found = {
      base: name
      for base, name in found.items()
      if scan.folders(os.path.join(path, name))
    }
  if found and others:
    scan.warn_once(
      f'{decode.shown(path)}: left out what is beside the splits: '
      f'{scan.listing(others)}.'
    )
  order = ('train', 'test', 'validation')
  return {base: found[base] for base in order if base in found}


def _choose(
  parts: Sequence[splits.Part],
  list_images: Callable[[str], Listing],
  class_names: Sequence[str],
  where: str,
) -> tuple[list[str], np.ndarray]:
  """Returns paths and int32 labels of the images in the parts."""
  by_name = {name: label for label, name in enumerate(class_names)}
  names, labels = [], [np.zeros(0, np.int32)]
  for base in dict.fromkeys(part.base for part in parts):
    found = list_images(base)
    unknown = [name for name in found.classes if name not in by_name]
    if unknown:
      raise errors.DataError(_unknown_text(unknown, base, class_names, where))
    here = [part for part in parts if part.base == base]
    is_chosen = np.ones(len(found.names), bool)
    if not any(part.is_whole for part in here):
      hashes = splits.hash_names(found.names)
      is_chosen = np.any([part.holds(hashes) for part in here], axis=0)
    chosen = itertools.compress(found.names, is_chosen.tolist())
    names += [found.prefix + name for name in chosen]
    to_label = np.array([by_name[name] for name in found.classes], np.int32)
    labels.append(to_label[found.class_index[is_chosen]])
  return names, np.concatenate(labels)


def _check_classes(class_names: Sequence[str], where: str) -> None:
  if not class_names:
    raise errors.DataNotFoundError(
      f'{where}: no image to train on. Expected PATH/train/CLASS/IMAGE or '
      'PATH/CLASS/IMAGE, the names of images ending in '
      f'{" ".join(images.SUFFIXES)}, or a list of images.'
    )
  if len(class_names) == 1:
    raise errors.DataError(
      f'{where} has one class, {class_names[0]!r}, and there is nothing to '
      'learn from one. Give the folder that has a folder for each class, or a '
      'folder train that has.'
    )


def _unknown_text(
  unknown: Sequence[str], base: str, class_names: Sequence[str], where: str
) -> str:
  lines = []
  for name in unknown[:_MAX_TOLD]:
    close = difflib.get_close_matches(name, class_names, n=1)
    lines.append(
      f'  {name!r}' + (f' (did you mean {close[0]!r}?)' if close else '')
    )
  if len(unknown) > _MAX_TOLD:
    lines.append(f'  and {len(unknown) - _MAX_TOLD:,} more')
  return (
    f'{where}: {base} has classes that train has no image of:\n'
    + '\n'.join(lines)
    + f'\nRename or remove them. train has {scan.listing(class_names)}.'
  )


def _warn_of_absent(
  labels: np.ndarray, class_names: Sequence[str], where: str
) -> None:
  counts = np.bincount(labels, minlength=len(class_names))
  absent = [*itertools.compress(class_names, counts == 0)]
  if absent:
    scan.warn_once(
      f'{where}: {len(absent):,} of {len(class_names):,} classes have no '
      f'image: {scan.listing(absent)}.'
    )
