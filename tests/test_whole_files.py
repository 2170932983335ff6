"""Files are there whole or as they were, and what fails is named."""

import errno
import os

import pytest

from vit_jax.whole_files import replacing, write_text


def test_file_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'labels.json'
  write_text(path, 'old')
  with pytest.raises(UnicodeEncodeError):
    write_text(path, 'new' * 10_000 + '\ud800')
  assert path.read_text() == 'old'


def test_file_does_not_replace_what_is_none(tmp_path):
  pipe, folder = tmp_path / 'pipe', tmp_path / 'folder'
  os.mkfifo(pipe)
  folder.mkdir()
  for path, text in ((pipe, 'a pipe or a socket'), (folder, 'a directory')):
    with pytest.raises(OSError, match=text) as raised:
      write_text(path, 'new')
    assert raised.value.filename == str(path)
  assert pipe.is_fifo() and folder.is_dir()
  assert {*tmp_path.iterdir()} == {pipe, folder}


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EIO])
def test_error_names_the_file(number, tmp_path):
  path = tmp_path / 'labels.json'
  path.write_text('old')
  with (
    pytest.raises(OSError, match=os.strerror(number)) as raised,
    replacing(path) as partial,
  ):
    partial.write_text('new')
    raise OSError(number, os.strerror(number))  # As `write` does: no name.
  found = raised.value
  assert (found.errno, found.filename) == (number, str(path))
  assert found.strerror == os.strerror(number)
  assert [*tmp_path.iterdir()] == [path] and path.read_text() == 'old'


def test_directory_that_is_not_there_is_named_by_the_file(tmp_path):
  path = tmp_path / 'gone' / 'labels.json'
  with pytest.raises(FileNotFoundError) as raised:
    write_text(path, 'new')
  assert raised.value.filename == str(path)
