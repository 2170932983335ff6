"""Fetches `hf://OWNER/REPO[/FILE][@REVISION]` from Hugging Face.

`huggingface_hub` knows the endpoint, the user's token and what the user already
has; the bytes come through `download`, whose patience is bounded.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import urllib.parse
from typing import Any, Self

from vit_jax import errors
from vit_jax.checkpoints.remote import download, patience
from vit_jax.checkpoints.remote.reasons import UnavailableError, reason_of

HOST = 'huggingface.co'
_SUFFIXES = ('.npz', '.safetensors')
_DEFAULT_FILE = 'model.safetensors'
# In our cache: by what was wanted, which file of the repository that was.
_CHOICES = '.choices.json'
_ADDRESS = re.compile(
  r'hf://(?P<repo>[^/@]+/[^/@]+)(?:/(?P<file>[^@]+?))?/?(?:@(?P<revision>[^@]+))?'
)
# As Hugging Face itself writes it, REVISION/FILE; 'refs/pr/3' is a revision.
_FILE_AT_END = re.compile(r'(refs/\w+/[^/]+|[^/]+)/(.+\.(?:npz|safetensors))')
# What a browser shows of a repository or of a file in it.
_PAGE = re.compile(
  r'https?://huggingface\.co/(?!(?:datasets|spaces|docs|blog)/)'
  r'(?P<repo>[^/?#]+/[^/?#]+)'
  r'(?:/(?:tree|blob)/(?P<revision>[^/?#]+)(?P<file>/[^?#]+?)?)?/?(?:[?#].*)?'
)
_SHA256 = re.compile(r'[0-9a-f]{64}')
# File, address, SHA-256 or '', fields of the request.
_Found = tuple[str, str, str, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Address:
  """What an `hf://` address says; `file` is '' where it names none."""

  repo: str
  file: str
  revision: str

  @classmethod
  def of(cls, address: str) -> Self:
    """Returns the parts of an address.

    Raises:
      CheckpointNotFoundError: it isn't one; the text says how one is written.
    """
    found = _ADDRESS.fullmatch(address)
    file = (found and found['file']) or ''
    parts = pathlib.PurePosixPath(address).parts
    if not found or '..' in parts:
      raise errors.CheckpointNotFoundError(
        f'{address!r} is no address on Hugging Face. Expected '
        'hf://OWNER/REPO, and /FILE or @REVISION after it if need be, such as '
        'hf://timm/vit_base_patch16_224.orig_in21k.'
      )
    revision = found['revision'] or 'main'
    if not file and (at_end := _FILE_AT_END.fullmatch(revision)):
      revision, file = at_end.groups()
    return cls(found['repo'], file, revision)


def cached(
  address: str, cache: pathlib.Path, names: tuple[str, ...], is_offline: bool
) -> str:
  """Returns the path of what an earlier download left, or ''.

  Args:
    address: see above.
    cache: our own cache's directory; after it, the one of `huggingface_hub` is
      looked at.
    names: of files that are wanted if the address names none.
    is_offline: whether nobody can be asked which file of the repository an
      address without one means: if that was never asked, it is then the one
      that is there.
  """
  place = Address.of(address)
  folder = _folder(place, cache)
  wanted = [place.file or _DEFAULT_FILE]
  if not place.file:
    wanted += _chosen_before(folder, names)
    wanted += names if is_offline else ()
  for name in wanted:
    if os.path.isfile(folder / name):
      return str(folder / name)
  if is_offline and not place.file and folder.is_dir():
    files = [each for each in folder.iterdir() if each.suffix in _SUFFIXES]
    if len(files) == 1:
      return str(files[0])
  return _in_their_cache(place, wanted)


def _chosen_before(folder: pathlib.Path, names: tuple[str, ...]) -> list[str]:
  """Returns what `_note_choice` noted."""
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    return [str(json.loads((folder / _CHOICES).read_bytes())[' '.join(names)])]
  return []


def _note_choice(
  folder: pathlib.Path, names: tuple[str, ...], file: str
) -> None:
  """Notes which file of a repository an address without one stands for."""
  choices = {}
  with contextlib.suppress(OSError, ValueError, TypeError):
    choices = dict(json.loads((folder / _CHOICES).read_bytes()))
  choices[' '.join(names)] = file
  with contextlib.suppress(OSError):  # Then it is asked again.
    (folder / _CHOICES).write_text(json.dumps(choices), encoding='utf-8')


def _in_their_cache(place: Address, names: list[str]) -> str:
  caches = os.environ.get('XDG_CACHE_HOME', '~/.cache')
  default = os.environ.get('HF_HOME') or f'{caches}/huggingface'
  home = os.environ.get('HF_HUB_CACHE') or default
  if not pathlib.Path(home).expanduser().is_dir():
    return ''  # So that nothing is imported for those who never used it.
  import huggingface_hub

  for name in names:
    path = huggingface_hub.try_to_load_from_cache(
      place.repo, name, revision=place.revision
    )
    if isinstance(path, str):
      return path
  return ''


def fetch(
  address: str, cache: pathlib.Path, names: tuple[str, ...], sha256: str = ''
) -> str:
  """Downloads the file of an address and returns its path in our cache.

  Args:
    address: see above. Without a file, `model.safetensors` is taken, or that
      of `names` that the repository has, or its only `.npz` or `.safetensors`.
    cache: our own cache's directory.
    names: see `address`.
    sha256: of the file, in hexadecimal; '' takes the one that the server
      states.

  Raises:
    UnavailableError: the server doesn't give the file.
  """
  place = Address.of(address)
  endpoint = _endpoint()
  host = urllib.parse.urlsplit(endpoint).netloc
  if place.file:
    found = _ask(host, lambda: _look_up(place, place.file, endpoint))
  else:
    found = _ask(host, lambda: _choose(place, names, endpoint))
  file, url, stated, headers = found
  target = _folder(place, cache) / file
  download.fetch(url, target, sha256=sha256 or stated, headers=headers)
  if not place.file:
    _note_choice(_folder(place, cache), names, file)
  return str(target)


def _choose(place: Address, names: tuple[str, ...], endpoint: str) -> _Found:
  """Looks up the weights of a repository of which the file isn't named."""
  import huggingface_hub

  # Most have it, and asking for it spares the question for the list.
  with contextlib.suppress(huggingface_hub.errors.EntryNotFoundError):
    return _look_up(place, _DEFAULT_FILE, endpoint)
  info = huggingface_hub.HfApi(endpoint=endpoint).model_info(
    place.repo, revision=place.revision, timeout=patience.FIRST_BYTE_SECONDS
  )
  files = [each.rfilename for each in info.siblings or ()]
  files = [name for name in files if name.endswith(_SUFFIXES)]
  wanted = [name for name in names if name in files] or files
  if not files:
    raise UnavailableError('the repository has no .npz or .safetensors file')
  if len(wanted) > 1:
    raise UnavailableError(
      'the repository has several weight files; name one of them by '
      f'hf://{place.repo}/FILE: {", ".join(sorted(files))}'
    )
  return _look_up(place, wanted[0], endpoint)


def _look_up(place: Address, file: str, endpoint: str) -> _Found:
  """Returns a file's name, address, SHA-256 or '', and fields to ask with."""
  import huggingface_hub
  from huggingface_hub.utils import build_hf_headers

  url = huggingface_hub.hf_hub_url(
    place.repo, file, revision=place.revision, endpoint=endpoint
  )
  found = huggingface_hub.get_hf_file_metadata(
    url, timeout=patience.FIRST_BYTE_SECONDS, endpoint=endpoint
  )
  # For large files, and only for them, the tag is the SHA-256.
  tag = found.etag or ''
  sha256 = tag if _SHA256.fullmatch(tag) else ''
  return file, url, sha256, build_hf_headers()


def _ask(host: str, ask: Any) -> Any:
  """Returns `ask()`; what `huggingface_hub` raises becomes a reason."""
  from huggingface_hub import errors as hub_errors

  try:
    return patience.first_answer(host, ask)
  except hub_errors.GatedRepoError as error:
    reason = 'the repository is gated: ask for access on its page, then log in'
    raise UnavailableError(f'{reason} with `hf auth login`', 403) from error
  except hub_errors.RepositoryNotFoundError as error:
    reason = 'no such repository, or a private one (`hf auth login`)'
    raise UnavailableError(reason, 404) from error
  except hub_errors.RevisionNotFoundError as error:
    raise UnavailableError('no such revision', 404) from error
  except hub_errors.EntryNotFoundError as error:
    raise UnavailableError('no such file in the repository', 404) from error
  except hub_errors.HfHubHTTPError as error:
    status = getattr(error.response, 'status_code', None)
    raise UnavailableError(f'HTTP {status}', status) from error
  except UnavailableError:
    raise
  except Exception as error:
    # Of the HTTP library below it, which changed twice in recent years.
    if 'Timeout' in type(error).__name__:
      raise UnavailableError(patience.keeps_silent(host)) from error
    raise UnavailableError(reason_of(error)) from error


def _endpoint() -> str:
  from huggingface_hub import constants

  # Read anew: `huggingface_hub` reads it once, when it is imported.
  named = os.environ.get('HF_ENDPOINT') or constants.ENDPOINT
  return named.rstrip('/')


def page_address(address: str) -> str:
  """Returns the `https://` address from which a browser gets the file."""
  place = Address.of(address)
  file = urllib.parse.quote(place.file or _DEFAULT_FILE)
  revision = urllib.parse.quote(place.revision, safe='')
  return f'https://{HOST}/{place.repo}/resolve/{revision}/{file}'


def of_page(page: str) -> str:
  """Returns the `hf://` address of what a page in the browser shows, or ''."""
  if not (found := _PAGE.fullmatch(page)):
    return ''
  file = urllib.parse.unquote(found['file'] or '')
  file = file if file.endswith(_SUFFIXES) else ''
  revision = found['revision'] or 'main'
  at = '' if revision == 'main' else f'@{urllib.parse.unquote(revision)}'
  return f'hf://{found["repo"]}{file}{at}'


def cache_path(address: str, cache: pathlib.Path) -> pathlib.Path:
  """Returns where in our cache the file of an address is."""
  place = Address.of(address)
  return _folder(place, cache) / (place.file or _DEFAULT_FILE)


def _folder(place: Address, cache: pathlib.Path) -> pathlib.Path:
  revision = place.revision.replace('/', '--')
  return cache / HOST / place.repo / revision
