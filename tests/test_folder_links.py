"""Symbolic links in folders of images: within, out of it, loops and nowhere."""

import pytest
from image_folder import add, add_classes, load, relative_paths

from vit_jax import errors
from vit_jax.data import decode


@pytest.mark.parametrize('kind', ['file', 'folder', 'class', 'split'])
def test_links_out_of_the_folder_are_refused_unless_asked_for(
  kind, root, tmp_path
):
  add_classes(root / 'train', cat=1, dog=1)
  elsewhere = tmp_path / 'elsewhere' / 'owl'
  add(elsewhere / '0.png', 77)
  link, target = {
    'file': (root / 'train' / 'dog' / 'link.png', elsewhere / '0.png'),
    'folder': (root / 'train' / 'dog' / 'more', elsewhere),
    'class': (root / 'train' / 'owl', elsewhere),
    'split': (root / 'val', elsewhere.parent),
  }[kind]
  link.symlink_to(target)
  split = 'val[:100%]' if kind == 'split' else 'train'
  with pytest.raises(errors.DataError) as caught:
    load(root, split)
  assert '--config.follow_links=True' in str(caught.value)
  assert 'out of the data set' in str(caught.value)
  assert link.name in str(caught.value)
  if kind == 'split':
    add(root / 'train' / 'owl' / '0.png')
  source = load(root, split, follow_links=True)
  greys = [
    decode.decode(source.read(index)[0])[0, 0, 0]
    for index in range(len(source))
  ]
  assert greys.count(77) == 1


def test_links_within_the_folder_are_followed(root, tmp_path):
  add_classes(root, cat=2, dog=1)
  (root / 'dog' / '1.png').symlink_to(root / 'cat' / '1.png')
  (root / 'emu').symlink_to('cat')
  (tmp_path / 'pets2').symlink_to(root)  # That of the folder itself is meant.
  source = load(tmp_path / 'pets2', 'train[:100%]')
  assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('follow_links', [False, True])
def test_loops_of_links_end(follow_links, root):
  add_classes(root, cat=2, dog=1)
  (root / 'cat' / 'a').symlink_to(root / 'cat')
  (root / 'cat' / 'b').symlink_to(root / 'dog')
  (root / 'dog' / 'c').symlink_to(root / 'cat')
  source = load(root, 'train[:100%]', follow_links=follow_links)
  assert relative_paths(source, root) == [
    'cat/0.png',
    'cat/1.png',
    'cat/b/0.png',
    'dog/0.png',
    'dog/c/0.png',
    'dog/c/1.png',
  ]


def test_folder_has_its_own_name_and_not_that_of_a_link(root):
  add_classes(root, dog=1)
  add(root / 'cat' / 'm' / '0.png')
  for name in 'abcdxyz':
    (root / 'cat' / name).symlink_to('m')
  source = load(root, 'train[:100%]')
  assert relative_paths(source, root) == ['cat/m/0.png', 'dog/0.png']


def test_link_to_nothing_is_named(root):
  add_classes(root, cat=2, dog=1)
  (root / 'dog' / 'self.png').symlink_to(root / 'dog' / 'self.png')
  with pytest.raises(errors.DataError, match=r'to nothing: dog/self\.png'):
    load(root, 'train[:100%]')
