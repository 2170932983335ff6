"""What is said where weights are in none of the places, and how soon."""

import dataclasses
import pathlib
import shlex
import time
import urllib.parse

import file_server
import pytest
from file_server import CONTENT, ON_HUB, Answer, give_on_hub, touch

from vit_jax import errors
from vit_jax.checkpoints import locate as locate_module
from vit_jax.checkpoints.locate import locate
from vit_jax.checkpoints.remote import patience
from vit_jax.environment import cache_dir

BUCKET = 'https://storage.googleapis.com/vit_models'


# Nothing is contacted but the server.
pytestmark = pytest.mark.usefixtures('empty_cache')


def error_of(*args, **kwargs) -> str:
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    locate(*args, **kwargs)
  return str(caught.value)


def fetch_of(text: str) -> tuple[str, str]:
  """Returns the file and the address of the command in an error."""
  (line,) = (line for line in text.splitlines() if 'curl' in line)
  *options, target, address = shlex.split(line)
  assert options == ['curl', '-fL', '--create-dirs', '-o']
  return target, urllib.parse.unquote(address)


def test_error_lists_all_places(server, empty_cache, tmp_path):
  server.give('/vit_models/imagenet21k/ViT-B_16.npz', Answer(status=403))
  (tmp_path / 'pretrained').mkdir()
  text = error_of('ViT-B_16', str(tmp_path / 'pretrained'))
  google = 'storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz'
  lines = text.splitlines()
  assert lines[0] == "No weights for 'ViT-B_16'. Looked at:"
  assert [line.split(': ')[0] for line in lines if line.startswith('  ')] == [
    f'  {tmp_path}/pretrained/ViT-B_16.npz',
    f'  {tmp_path}/pretrained/ViT-B_16.safetensors',
    f'  {tmp_path}/pretrained/model.npz',
    f'  {tmp_path}/pretrained/model.safetensors',
    f'  {tmp_path}/pretrained/checkpoints',
    f'  {empty_cache}/ViT-B_16.npz',
    f'  {empty_cache}/ViT-B_16.safetensors',
    f'  {empty_cache}/{google}',
    f'  {empty_cache}/huggingface.co/{ON_HUB}/main/model.safetensors',
    '  gs://vit_models/imagenet21k/ViT-B_16.npz',
    f'  hf://{ON_HUB}',
    '  pip install gcsfs && gcloud auth application-default login',
    *(line for line in lines if 'curl' in line),
  ]
  assert 'ViT-B_16.npz: HTTP 403 Forbidden (Google is reported' in text
  assert 'issue 321' in text
  assert f'hf://{ON_HUB}: HTTP 404' in text
  assert '--config.pretrained_dir=DIR' in text
  assert '(--config.pretrained_dir=)' in text


def test_silent_servers_are_given_up_together(server, monkeypatch):
  monkeypatch.setattr(patience, 'FIRST_BYTE_SECONDS', 0.1)
  for path in (
    '/vit_models/imagenet21k/ViT-B_16.npz',
    f'/hub/{ON_HUB}/resolve/main/model.safetensors',
  ):
    server.give(path, Answer(is_silent=True))
  start = time.monotonic()
  text = error_of('ViT-B_16')
  assert time.monotonic() - start < 5
  assert 'ViT-B_16.npz: no answer within' in text
  assert f'hf://{ON_HUB}: not asked, because it gave no answer' in text


def test_all_servers_share_one_patience(server, monkeypatch):
  # Each alone would be waited for: an answer takes 0.3 seconds, and there are
  # many of them, and the body never ends.
  monkeypatch.setattr(locate_module, 'SEARCH_SECONDS', 1.0)
  late = Answer(CONTENT, delay=0.3, pause=0.3)
  monkeypatch.setattr(patience, '_useless_hosts', {})
  server.give('/vit_models/imagenet21k/ViT-B_16.npz', late)
  with file_server.serve() as hub:
    monkeypatch.setenv('HF_ENDPOINT', hub.address)
    hub.give(
      f'/{ON_HUB}/resolve/main/model.safetensors',
      dataclasses.replace(late, headers={'X-Repo-Commit': '0' * 40}),
    )
    start = time.monotonic()
    text = error_of('ViT-B_16')
  assert time.monotonic() - start < 6
  assert 'bytes in 1 seconds' in text
  assert f'hf://{ON_HUB}: not asked, after 1 seconds' in text


@pytest.mark.parametrize('variable', ['VIT_JAX_OFFLINE', 'HF_HUB_OFFLINE', ''])
def test_offline(server, monkeypatch, variable):
  if variable:
    monkeypatch.setenv(variable, '1')
  give_on_hub(server, ON_HUB)
  text = error_of('ViT-B_16', offline=None if variable else True)
  assert text.count(': offline\n') == 2
  assert 'VIT_JAX_OFFLINE' in text and 'offline=False' in text
  assert not server.requests
  touch(cache_dir() / 'ViT-B_16.npz')
  assert locate('ViT-B_16', offline=None if variable else True)


def test_argument_goes_before_the_variable(server, monkeypatch):
  monkeypatch.setenv('VIT_JAX_OFFLINE', '1')
  give_on_hub(server, ON_HUB)
  assert locate('ViT-B_16', offline=False)


@pytest.mark.parametrize(('name', 'directory', 'address'), [
  ('ViT-B_16', '.', f'{BUCKET}/imagenet21k/ViT-B_16.npz'),
  ('R50+ViT-B_16', '..', f'{BUCKET}/imagenet21k/R50+ViT-B_16.npz'),
  ('S_16-i21k-300ep', '..', f'{BUCKET}/augreg/S_16-i21k-300ep.npz'),
  ('ViT-B_16', 'gs://vit_models/sam', f'{BUCKET}/sam/ViT-B_16.npz'),
  ('Ti_16-i1k-s_0', 'gs://vit_models/augreg/',
   f'{BUCKET}/augreg/Ti_16-i1k-s_0.npz'),
  ('augreg/S_16-i1k-', 'gs://vit_models', f'{BUCKET}/augreg/S_16-i1k-.npz'),
  ('gs://vit_models/sam/ViT-L_16.npz', '.', f'{BUCKET}/sam/ViT-L_16.npz'),
  ('Mixer-S_8', 'gsam',
   'https://storage.googleapis.com/mixer_models/gsam/Mixer-S_8.npz'),
  ('b16', 'https://example.org/w', 'https://example.org/w/b16.npz'),
  ('hf://a/b', '.', 'https://huggingface.co/a/b/resolve/main/model.safetensors'),
])  # fmt: skip
def test_what_the_command_fetches_is_then_found(name, directory, address):
  target, found = fetch_of(error_of(name, directory))
  assert found == address
  path = touch(pathlib.Path(target))
  assert locate(name, directory) == path


def test_command_is_for_a_place_that_did_not_refuse(server):
  server.give('/vit_models/imagenet21k/ViT-B_16.npz', Answer(status=403))
  give_on_hub(server, ON_HUB, b'<html>')
  assert fetch_of(error_of('ViT-B_16'))[1].endswith(
    f'{ON_HUB}/resolve/main/model.safetensors'
  )


@pytest.mark.parametrize('name', ["it's-i21k-mine", '$HOME-i1k-; ls'])
def test_command_is_safe_to_paste(name, empty_cache):
  target, address = fetch_of(error_of(name))
  folder = 'storage.googleapis.com/vit_models/augreg'
  assert target == f'{empty_cache}/{folder}/{name}.npz'
  assert address == f'{BUCKET}/augreg/{name}.npz'


@pytest.mark.parametrize('directory', ['.', 'gs://vit_models/imagenet21k'])
@pytest.mark.parametrize('name', ['tiny', 'ViT-Ti_17', 'x'])
def test_what_was_never_published_is_not_asked_for(name, directory, server):
  text = error_of(name, directory)
  assert 'curl' not in text and not server.requests
  assert f'Unknown published weights {name!r}' in text
  assert 'configs/augreg.py:Ti_16' in text
  assert '(--config.pretrained_dir=)' in text


def test_weights_of_another_upstream_are_named():
  text = error_of('ViT-Ti_16', 'gs://vit_models/imagenet21k')
  assert "'ViT-Ti_16' was published as augreg/ViT-Ti_16" in text


def test_path_with_directories_is_not_fetched(server):
  give_on_hub(server, ON_HUB)
  text = error_of('weights/ViT-B_16.npz')
  assert not server.requests
  assert '\n  weights/ViT-B_16.npz\n' in text
  assert 'Unknown' not in text


@pytest.mark.parametrize('name', ['x' * 999, 'a\0b', 'ViT-B_16/model.npz/x'])
def test_path_that_no_file_can_have(name):
  touch(pathlib.Path('ViT-B_16/model.npz'))
  assert 'No weights for' in error_of(name)


@pytest.mark.parametrize(('name', 'text'), [
  ('https://[bad/w.npz', 'is no address'),
  ('hf://mine', 'no address on hugging face'),
  *((f'https://example.org/w.npz#{each}', 'expected') for each in (
    'sha256=123', f'sha256={"z" * 64}', f'sha256:{"0" * 64}',
    f'SHA256={"0" * 64}', f'sha256={"0" * 64}0', f'md5={"0" * 32}', 'x', '')),
  (f'hf://a/b#sha256:{"0" * 64}', 'expected'),
  ('ViT-B_16#sha256=123', 'expected'),
])  # fmt: skip
def test_address_that_is_none(name, text, server):
  assert text in error_of(name).lower()
  assert text in error_of('ViT-B_16', name).lower()
  assert not server.requests


def test_refusal_of_another_server_is_not_taken_for_googles(server):
  server.give('/mine/w.npz', Answer(status=403))
  text = error_of('gs://mine/w.npz')
  assert 'HTTP 403' in text and 'issue 321' not in text


def test_address_of_another_kind():
  text = error_of('s3://mine/w.npz', offline=False)
  assert 'not an https://' in text and 'curl' not in text


@pytest.mark.parametrize('name', ['tiny', 'ViT-B_16', 'B_16-i21k-', '~/x.npz'])
@pytest.mark.parametrize(('directory', 'text'), [
  ('/data/wieghts', "'/data/wieghts' is not there"),
  ('wieghts/', "'wieghts/' is not there"),
  ('sma', "Did you mean 'sam'?"),
  ('augerg/B_16', "Did you mean 'augreg/B_16'?"),
  ('vit-b16', "Did you mean 'ViT-B_16'?"),
  ('ViT-B_16.npz', "The published ones are called 'ViT-B_16'."),
  ('/ViT-B_16', "'/ViT-B_16' is not there"),
  ('runs-i21k-mine', 'is not there'),
])  # fmt: skip
def test_mistyped_directory_is_not_replaced(server, name, directory, text):
  give_on_hub(server, ON_HUB)
  if name[0] == '~':
    assert directory not in error_of(name, directory)
    return
  found = error_of(name, directory)
  assert text in found and repr(name) in found
  assert ('Did you mean' in found) == ('Did you mean' in text)
  assert not server.requests


def test_wrong_sum_is_not_fetched_again(server):
  url = server.give('/w.npz', Answer(CONTENT))
  text = error_of(f'{url}#sha256={"0" * 64}')
  assert 'wrong sha256' in text and 'curl' not in text
  assert 'leave #sha256=... away' in text


@pytest.mark.parametrize(('path', 'address'), [
  ('me/mine', 'hf://me/mine'),
  ('me/mine/', 'hf://me/mine'),
  ('me/mine/tree/v1', 'hf://me/mine@v1'),
  ('me/mine/blob/main/a/w.npz', 'hf://me/mine/a/w.npz'),
  ('me/mine/blob/v1/w.npz?x=1', 'hf://me/mine/w.npz@v1'),
])  # fmt: skip
def test_page_of_a_repository_is_told_from_its_weights(path, address):
  text = error_of(f'https://huggingface.co/{path}')
  assert f'is a page; its weights are {address}\n' in text
  assert 'curl' not in text


def test_address_of_a_file_on_the_hub_is_no_page():
  page = 'https://huggingface.co/me/mine/resolve/main/w.npz'
  assert 'is a page' not in error_of(page)
  assert 'is a page' not in error_of('https://huggingface.co/datasets/mnist')


@pytest.mark.parametrize(('files', 'text'), [
  (['b.npz', 'a.safetensors', 'c.bin', '.d.npz'], 'has a.safetensors, b.npz:'),
  (['pytorch_model.bin'], 'has no .npz or .safetensors file'),
  ([f'{i}.npz' for i in range(10, 23)], 'has 10.npz, 11.npz, 12.npz, 13.npz, '
   '14.npz, 15.npz, 16.npz, 17.npz, 18.npz, 19.npz and 3 more: name one'),
])  # fmt: skip
def test_weight_files_of_a_directory_are_listed(tmp_path, files, text):
  for file in files:
    touch(tmp_path / 'clone' / file)
  for place in (
    ('tiny', tmp_path / 'clone'),
    ('ViT-B_16', str(tmp_path / 'clone')),
    (tmp_path / 'clone',),
  ):
    found = error_of(*place)
    assert f'{tmp_path / "clone"} {text}' in found
    assert 'Unknown' not in found


def test_advice_is_for_scripts_too():
  text = error_of('ViT-B_16')
  assert 'In a training command that is --config.pretrained_dir=DIR' in text
