"""Data sets that are paths told from names, and files that are none."""

import pytest
from image_folder import make_config

from vit_jax import errors
from vit_jax.data import paths, sources


@pytest.mark.parametrize(
  ('dataset', 'expected'),
  [
    ('/data/pets', True),
    ('./pets', True),
    ('../pets', True),
    ('..', True),
    ('~/pets', True),
    ('~', True),
    ('here/pets', True),
    ('list.csv', True),
    ('LIST.CSV', True),
    ('a/list.jsonl', True),
    ('list.json-lines', True),
    ('list.ndjson', True),
    ('here', False),  # A name, whatever folders there are.
    ('digits', False),
    ('digits/0_to_4', False),
    ('cifar10:3.0.2', False),
    ('imagenet_v2/matched-frequency:1.0.0', False),
    ('vtab.json', False),
    ('none.txt', False),
    ('made.txt', True),  # A file, which can't be a data set's name.
    ('made.TSV', True),
    ('', False),
  ],
)
def test_paths_are_told_from_names(dataset, expected, tmp_path, monkeypatch):
  (tmp_path / 'here' / 'pets').mkdir(parents=True)
  for name in ('made.txt', 'made.TSV', 'digits'):
    (tmp_path / name).touch()
  monkeypatch.chdir(tmp_path)
  assert paths.is_path(dataset) is expected


@pytest.mark.parametrize(
  ('name', 'texts'),
  [
    ('a.txt', ["is a file that ends in '.txt'", 'the header path,label']),
    ('b.TSV', ["in '.TSV'", 'Put commas for its tabs', 'end in .csv']),
    ('b.json', ['Write an object a line', 'end in .jsonl']),
    ('b.tar.gz', ["in '.gz'", 'Unpack it and give the folder.']),
    ('b.png', ["in '.png'. Expected a folder", '.ndjson.']),
  ],
)
@pytest.mark.parametrize('is_here', [False, True])
def test_file_of_another_kind_is_told_with_the_remedy(
  name, texts, is_here, tmp_path, monkeypatch
):
  (tmp_path / name).write_text('0.png\tcat\n')
  monkeypatch.chdir(tmp_path)
  # Nothing but its ending tells it from a data set's name.
  is_bare = is_here and not name.endswith('.png')
  config = make_config(name if is_bare else tmp_path / name)
  with pytest.raises(errors.DataNotFoundError) as caught:
    sources.load_source(config, 'train')
  for text in [name, *texts]:
    assert text in str(caught.value)
