"""What is said where weights are in none of the places, and what to do."""

import dataclasses
import difflib
import pathlib
import re
import shlex

from vit_jax.checkpoints.places import addresses, directories, published
from vit_jax.checkpoints.remote import bucket, hub
from vit_jax.checkpoints.remote.reasons import UnavailableError

_BUCKETS = re.compile(r'(gs://|googleapis\.com/)(vit|mixer)_models/')
_REFUSED = (
  ' (Google is reported to refuse anonymous reads since February 2026: issue '
  '321 of google-research/vision_transformer)'
)


@dataclasses.dataclass
class Report:
  """What a search saw.

  Attributes:
    name: of what was looked for.
    cache: the cache's directory.
    paths: the files looked for, each with what is wrong with it, or ''.
    addresses: those asked, each with why it gave nothing.
    unknown: what is wrong with a name that was never published, or ''.
    directory: on this machine, named by the user, or None.
    sha256: that the file was to have, or ''.
  """

  name: str
  cache: pathlib.Path
  unknown: str = ''
  directory: pathlib.Path | None = None
  sha256: str = ''
  paths: dict[str, str] = dataclasses.field(default_factory=dict)
  addresses: dict[str, UnavailableError] = dataclasses.field(
    default_factory=dict
  )

  def text(self) -> str:
    """Returns every place, why it gave nothing, and what to do about it."""
    lines = [f'No weights for {self.name!r}. Looked at:']
    lines += [f'  {path}{reason}' for path, reason in self.paths.items()]
    for address, error in self.addresses.items():
      is_refused = error.status == 403 and _BUCKETS.search(address)
      lines.append(f'  {address}: {error}{_REFUSED if is_refused else ""}')
    lines += [*self._of_the_name(), *self._of_the_addresses()]
    return '\n'.join(
      [
        *lines,
        'Or name what has it: a file, a directory, an address (https://, '
        'gs://) or hf://OWNER/REPO. In a training command that is '
        '--config.pretrained_dir=DIR; an empty one (--config.pretrained_dir=) '
        'starts from random weights.',
      ]
    )

  def _of_the_name(self) -> list[str]:
    lines = []
    if self.directory:
      lines.append(directories.describe(self.directory))
    elif self.unknown:
      lines.append(self.unknown)
      lines.append(
        'AugReg weights have a config for training of their own: --config '
        'configs/augreg.py:Ti_16 and the like.'
      )
    reasons = [*self.paths.values(), *map(str, self.addresses.values())]
    if self.sha256 and any('wrong sha256' in each for each in reasons):
      lines.append(
        'A file with another SHA-256 is another file, or was changed on the '
        'way. Compare what you asked for with what its publisher states, or '
        'leave #sha256=... away to take the file as it is.'
      )
    return lines

  def _of_the_addresses(self) -> list[str]:
    lines = []
    if any(str(error) == 'offline' for error in self.addresses.values()):
      lines.append(
        'To download, allow it: offline=False, and VIT_JAX_OFFLINE and '
        'HF_HUB_OFFLINE unset.'
      )
    if any(
      address.startswith('gs://') and error.status == 403
      for address, error in self.addresses.items()
    ):
      lines.append(
        'If your Google account may read the bucket, use it:\n'
        '  pip install gcsfs && gcloud auth application-default login'
      )
    pages = {hub.of_page(address): address for address in self.addresses}
    pages.pop('', None)
    if pages:
      lines += [
        f'{page} is a page; its weights are {each}'
        for each, page in pages.items()
      ]
    elif address := self._best_address():
      lines.append(f'Fetch the published file with\n  {self._command(address)}')
    return lines

  def _best_address(self) -> str:
    """Returns the address of which a second try is the least hopeless."""
    statuses = {
      address: error.status
      for address, error in self.addresses.items()
      if not error.is_final
    }
    open_ones = [each for each in statuses if statuses[each] is None]
    return next(iter([*open_ones, *statuses]), '')

  def _command(self, address: str) -> str:
    target = addresses.cache_path(address, self.cache)
    url = address
    if address.startswith('gs://'):
      url = bucket.public_address(address)
    elif address.startswith('hf://'):
      url = hub.page_address(address)
    return shlex.join(['curl', '-fL', '--create-dirs', '-o', str(target), url])


def text_of_directory(name: str, directory: str) -> str:
  """Returns what to say of a directory that is nothing that is known."""
  plain = published.without_suffix(directory)
  lines = [
    f'No weights for {name!r}: {directory!r} is not there. It is no address '
    f'(https://, gs://, hf://), upstream ({", ".join(published.PUBLISHED)}) or '
    'name of published weights either.'
  ]
  if plain != directory and published.is_name(plain):
    lines.append(f'The published ones are called {plain!r}.')
  elif plain == directory and directory[0] not in '/.~':
    lines += [f'Did you mean {each!r}?' for each in _close_names(directory)]
  lines.append('Expected the path of a file or directory, or one of those.')
  return ' '.join(lines)


def _close_names(name: str) -> list[str]:
  """Returns the upstream or published name that a mistyped one may be."""
  table = published.PUBLISHED
  plain = [name for row in table.values() for name in row]
  names = [f'{each}/{name}' for each, row in table.items() for name in row]
  by_folded = {each.lower(): each for each in [*names, *plain, *table]}
  close = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=0.66)
  return [by_folded[each] for each in close]
