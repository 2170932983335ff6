"""What addresses give, where it is kept, and when it is not taken."""

import hashlib
import pathlib

import pytest
from file_server import CONTENT, ON_HUB, Answer, give_on_hub, touch

from vit_jax import errors
from vit_jax.checkpoints.locate import locate

SHA256 = hashlib.sha256(CONTENT).hexdigest()


# Nothing is contacted but the server.
pytestmark = pytest.mark.usefixtures('empty_cache')


def error_of(*args, **kwargs) -> str:
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    locate(*args, **kwargs)
  return str(caught.value)


@pytest.mark.parametrize(('name', 'directory', 'path'), [
  ('{}/a/b.npz', '.', '/a/b.npz'),
  ('b', '{}/a', '/a/b.npz'),
  ('b.safetensors', '{}/a/', '/a/b.safetensors'),
  ('b', '{}/a', '/a/b.safetensors'),
  ('x', '{}/a/b.npz', '/a/b.npz'),
  ('sam/x', '{}/w', '/w/sam/x.npz'),
  ('gs://mine/a/b.npz', '.', '/mine/a/b.npz'),
  ('b', 'gs://mine/a', '/mine/a/b.npz'),
  ('gs://mine/a+b/c d.npz', '.', '/mine/a+b/c d.npz'),
  ('gs://mine/b/c/', '.', '/mine/b/c/'),
  ('b', '{}/a', '/a'),
  ('b', '{}/a/b', '/a/b/b.npz'),
  ('b', 'gs://mine/a', '/mine/a'),
])  # fmt: skip
def test_addresses(server, empty_cache, name, directory, path):
  server.give(path, Answer(CONTENT))
  found = locate(name.format(server.address), directory.format(server.address))
  assert pathlib.Path(found).read_bytes() == CONTENT
  assert found.startswith(f'{empty_cache}/')
  is_named = path.endswith(('.npz', '.safetensors'))
  assert found.endswith(path if is_named else f'{path.rstrip("/")}.file')
  server.requests.clear()
  again = locate(name.format(server.address), directory.format(server.address))
  assert again == found
  assert not server.requests


def test_addresses_as_pathlib_leaves_them(server):
  give_on_hub(server, 'me/mine')
  url = server.give('/a/b.npz', Answer(CONTENT))
  assert locate(pathlib.Path(url)) == locate(url)
  assert locate('x', pathlib.Path('hf://me/mine')) == locate('hf://me/mine')


def test_directory_on_the_hub(server):
  give_on_hub(server, 'me/mine')
  assert locate('ViT-B_16', 'hf://me/mine') == locate('hf://me/mine')


def test_name_goes_before_the_query_of_an_address(server):
  server.give('/dir/b.npz', Answer(CONTENT))
  locate('b', f'{server.address}/dir?token=1')
  (asked,) = server.urls
  assert asked == '/dir/b.npz?token=1'


def test_files_and_folders_of_one_address_do_not_clash(server):
  contents = {'/a': b'PK 1', '/a/b.npz': b'PK 2', '/a/b.npz/c.npz': b'PK 3'}
  for path, content in contents.items():
    server.give(path, Answer(content))
  for paths in (contents, reversed(contents)):
    for path in paths:
      found = pathlib.Path(locate(f'{server.address}{path}'))
      assert found.read_bytes() == contents[path]
      found.unlink()
  found = {locate(f'{server.address}{path}') for path in contents}
  assert len(found) == 3


def test_folder_goes_before_the_address_itself(server):
  server.give('/a', Answer(b'PK of a'))
  server.give('/a/b.safetensors', Answer(CONTENT))
  assert locate('b', f'{server.address}/a').endswith('/a/b.safetensors')
  assert locate('c', f'{server.address}/a').endswith('/a.file')


def test_sum_is_asked_of_all_files_that_an_address_may_mean(server):
  server.give('/a.npz/b.npz', Answer(b'PK other'))
  url = server.give('/a', Answer(CONTENT))
  assert locate('b', f'{url}#sha256={SHA256}').endswith('/a.file')


@pytest.mark.parametrize('name', ['#1.npz', 'a#b', 'a#sha256=1', 'a#sha256:x'])
def test_path_with_a_number_sign(name):
  touch(pathlib.Path(name))
  assert locate(name) == name
  assert locate('tiny', name) == name


@pytest.mark.parametrize(
  'content',
  [
    b'version https://git-lfs.github.com/spec/v1\noid sha256:0',
    b'{"error": "quota"}',
    b'\x1f\x8b\x08' + CONTENT,
    b'\xff\xff\xff\0\0\0\0\0{"longer": "than the file"}',
    b'P',
  ],
)
@pytest.mark.parametrize('file', ['w.npz', 'w.safetensors', 'w', 'w.zip'])
def test_what_is_no_weight_file_is_refused(server, empty_cache, content, file):
  url = server.give(f'/{file}', Answer(content))
  text = error_of(url)
  first = ascii(content[:9])[2:-1]
  assert 'not a file of weights' in text and f"begins with '{first}" in text
  assert 'curl' not in text
  assert not [each for each in empty_cache.rglob('w*') if each.is_file()]
  server.give(f'/{file}', Answer(CONTENT))
  assert locate(url)


def test_other_format_than_its_name_says_is_refused(server):
  npz = server.give('/w.npz', Answer(b'\2\0\0\0\0\0\0\0{}'))
  other = server.give('/w.safetensors', Answer(b'PK\3\4 and so on'))
  assert "'\\x02\\x00" in error_of(npz)
  assert "'PK\\x03\\x04" in error_of(other)


@pytest.mark.parametrize('encoding', ['gzip', 'br'])
def test_encoded_file_is_refused(server, encoding):
  fields = {'Content-Encoding': encoding}
  url = server.give('/w.npz', Answer(CONTENT, headers=fields))
  assert f'as {encoding} (Content-Encoding)' in error_of(url)
  server.give('/w.npz', Answer(CONTENT, headers={'Content-Encoding': ''}))
  assert locate(url)


def test_files_with_the_same_name_keep_apart(server, empty_cache):
  one = server.give('/get', Answer(b'PK 1')) + '?file=1.npz'
  two = one.replace('1.npz', '2.npz')
  first = locate(one)
  server.give('/get', Answer(b'PK 2'))
  assert pathlib.Path(locate(two)).read_bytes() == b'PK 2'
  assert pathlib.Path(first).read_bytes() == b'PK 1'


def test_address_can_not_leave_the_cache(server, empty_cache):
  url = server.give('/../../evil.npz', Answer(CONTENT))
  with pytest.raises(errors.CheckpointNotFoundError):
    locate('gs://../../../evil.npz')
  for address in (url, url.replace('..', '%2e%2e')):
    try:
      assert pathlib.Path(locate(address)).resolve().is_relative_to(empty_cache)
    except errors.CheckpointNotFoundError:
      continue


def test_sum_is_checked(server, empty_cache):
  url = server.give('/w.npz', Answer(CONTENT))
  text = error_of(f'{url}#sha256={"0" * 64}')
  assert f'wrong sha256: expected {"0" * 64}, got {SHA256}' in text
  assert not list(empty_cache.rglob('w.npz'))
  path = locate(f'{url}#sha256={SHA256.upper()}')
  assert locate('any', f'{url}#sha256={SHA256}') == path


def test_sum_of_a_file_is_not_asked_of_its_conversion(server):
  give_on_hub(server, ON_HUB)
  text = error_of(f'gs://vit_models/imagenet21k/ViT-B_16.npz#sha256={SHA256}')
  assert 'hf://timm' not in text and 'HTTP 404' in text


@pytest.mark.parametrize('offline', [True, False])
def test_cached_file_with_a_wrong_sum_stays_until_there_is_another(
  server, offline
):
  url = server.give('/w.npz', Answer(CONTENT))
  path = pathlib.Path(locate(url))
  text = error_of(f'{url}#sha256={"0" * 64}', offline=offline)
  assert f'{path}: wrong sha256: it has {SHA256}' in text
  assert path.read_bytes() == CONTENT
  assert locate(f'{url}#sha256={SHA256}', offline=True) == str(path)


def test_cached_file_with_a_wrong_sum_is_fetched_again(server):
  url = server.give('/w.npz', Answer(CONTENT))
  path = pathlib.Path(locate(url))
  path.write_bytes(b'damaged')
  assert locate(f'{url}#sha256={SHA256}') == str(path)
  assert path.read_bytes() == CONTENT


def test_file_of_the_user_with_a_wrong_sum_is_left_alone(tmp_path):
  path = touch(tmp_path / 'mine.npz')
  text = error_of(f'{path}#sha256={"0" * 64}')
  assert f'{path}: wrong sha256' in text
  assert pathlib.Path(path).exists()
