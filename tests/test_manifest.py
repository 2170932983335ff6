"""Lists of images: what they may look like, and every line that is wrong."""

import json
import os

import pytest
from image_folder import add, add_classes, load

from vit_jax import errors
from vit_jax.data import decode

ALL = 'train[:100%]'


@pytest.fixture
def root(tmp_path):
  """A folder of images, where the lists are too."""
  add_classes(tmp_path / 'img', ant=2, bee=2)
  return tmp_path


def write(path, content):
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def error_of(path, kind=errors.DataError, split=ALL) -> str:
  with pytest.raises(kind) as caught:
    load(path, split)
  text = str(caught.value)
  assert str(path) in text
  return text


ROWS = 'img/ant/0.png,ant\nimg/bee/1.png,bee\nimg/ant/1.png,ant\n'


@pytest.mark.parametrize(
  'content',
  [
    f'path,label\n{ROWS}',
    f'path,label\n{ROWS}'[:-1],
    f'path,label\n{ROWS}'.replace('\n', '\r\n'),
    f'\ufeffpath,label\n{ROWS}',
    f' Path , LABEL\n{ROWS}',
    f'path,label\n\n{ROWS}\n\n',
    f'path,label\n{ROWS}'.replace(',', ', '),
    f'path,label\n{ROWS}'.replace('ant\n', '"ant"\n'),
    'path,label,split\n' + ROWS.replace('\n', ',\n'),
    f'path,label\n{ROWS}'.replace('img/', './img/'),
    f'path,label\n{ROWS}'.replace('img/', 'img//'),
    'label,note,path\nant,"x,\ny",img/ant/0.png\nbee,,img/bee/1.png\n'
    'ant,z,img/ant/1.png',
  ],
)
def test_csv(content, root):
  source = load(write(root / 'list.csv', content), ALL)
  assert source.class_names == ('ant', 'bee')
  assert [os.path.relpath(path, root) for path in source.paths] == [
    'img/ant/0.png',
    'img/bee/1.png',
    'img/ant/1.png',
  ]
  assert source.labels.tolist() == [0, 1, 0]
  encoded, label = source.read(1)
  assert (label, decode.decode(encoded)[0, 0, 0]) == (1, 1)


@pytest.mark.parametrize('name', ['a.jsonl', 'a.NDJSON', 'a.json-lines'])
@pytest.mark.parametrize('labels', [('ant', 'bee'), (3, 12)])
@pytest.mark.parametrize('between', ['\n', '\r\n', '\n\n'])
def test_json_lines(name, labels, between, root):
  lines = [
    json.dumps({'path': 'img/bee/0.png', 'label': labels[1], 'more': [1]}),
    json.dumps({'label': labels[0], 'path': 'img/ant/0.png', 'split': None}),
  ]
  source = load(write(root / name, between.join(lines)), ALL)
  # Numbers are names too: 12 stands before 3.
  assert source.class_names == tuple(sorted(map(str, labels)))
  assert [source.class_names[label] for label in source.labels] == [
    str(labels[1]),
    str(labels[0]),
  ]


def test_names_may_have_commas_quotes_and_any_script(root):
  name, label = 'a, "b" été 日本.png', 'cats, "dogs" – ü'
  add(root / name)
  quoted = [text.replace('"', '""') for text in (name, label)]
  csv = write(
    root / 'a.csv',
    f'path,label\n"{quoted[0]}","{quoted[1]}"\nimg/ant/0.png,x\n',
  )
  lines = write(
    root / 'a.jsonl',
    json.dumps({'path': name, 'label': label})
    + '\n{"path": "img/ant/0.png", "label": "x"}',
  )
  for path in (csv, lines):
    source = load(path, ALL)
    assert source.class_names == (label, 'x')
    assert source.paths[0] == str(root / name)


def test_split_column(root):
  content = 'path,label,split\n' + ''.join(
    f'img/{path},{label},{split}\n'
    for path, label, split in (
      ('bee/0.png', 'bee', 'train'),
      ('ant/0.png', 'ant', ' Train'),
      ('bee/1.png', 'bee', 'val'),
      ('ant/1.png', 'ant', 'validation'),
    )
  )
  path = write(root / 'list.csv', content)
  assert load(path).labels.tolist() == [1, 0]
  held_out = load(path, 'test')
  assert (held_out.split, held_out.labels.tolist()) == ('validation', [1, 0])


def test_classes_come_from_the_training_rows(root):
  content = (
    'path,label,split\nimg/ant/0.png,ant,train\nimg/bee/0.png,bee,train\n'
    'img/bee/1.png,be,test\n'
  )
  path = write(root / 'list.csv', content)
  assert load(path).class_names == ('ant', 'bee')
  assert "'be' (did you mean 'bee'?)" in error_of(path, split='test')


def test_list_and_folder_are_split_alike(root):
  add_classes(root / 'img', ant=30, bee=30)
  names = [f'{c}/{i}.png,{c}' for c in ('ant', 'bee') for i in range(30)]
  path = write(root / 'img' / 'a.csv', '\n'.join(['path,label', *names]))
  absolute = write(
    root / 'img' / 'b.csv',
    '\n'.join(['path,label', *(f'{root}/img/{name}' for name in names)]),
  )
  expected = {*load(root / 'img', 'test').paths}
  assert {*load(path, 'test').paths} == expected
  assert {*load(absolute, 'test').paths} == expected
  assert 0 < len(expected) < 20


def test_paths_may_be_absolute_or_lead_out_of_the_folder(root):
  (root / 'lists').mkdir()
  content = f'path,label\n../img/ant/0.png,ant\n{root}/img/bee/0.png,bee\n'
  source = load(write(root / 'lists' / 'a.csv', content), ALL)
  assert [source.read(index)[1] for index in (0, 1)] == [0, 1]


def test_list_in_the_current_folder(root, monkeypatch):
  write(root / 'list.csv', f'path,label\n{ROWS}')
  monkeypatch.chdir(root)
  source = load('list.csv', ALL)
  monkeypatch.chdir('/')
  assert source.read(0)[1] == 0


@pytest.mark.parametrize(
  ('content', 'texts'),
  [
    ('', ['lists no image']),
    ('path,label\n', ['lists no image']),
    (ROWS, ['line 1', "'img/ant/0.png,ant'", "such as 'path,label'"]),
    ('path;label\n', ["'path;label'", 'path and label']),
    ('path,label,path\n', ["'path,label,path'"]),
    ('path,label\na\n', ['line 2: 1 cells, expected the 2 of line 1']),
    ('path,label\na,b,c\n', ['line 2: 3 cells, expected the 2']),
    ('path,label\n,b\n', ["line 2: path is '', expected a text"]),
    ('path,label\na, \n', ["line 2: label is '', expected a text"]),
    ('path,label\na\0b,c\n', ['line 2: ']),
    ('path,label\n"a,b\n', ['line 2: its quotes do not fit']),
    ('path,label\n"a"x,b\n', ['line 2: its quotes do not fit']),
    (
      'path,label,split\nimg/ant/0.png,ant,trian\n',
      ["line 2: split is 'trian', expected train or test or val"],
    ),
    (
      'path,label,split\nimg/ant/0.png,ant,train\nimg/bee/0.png,bee,\n',
      ['line 3: has no split'],
    ),
    (
      'path,label\n"img/ant/0.png","a\nb"\nimg/bee/0.png,bee\nx\n',
      ['line 5: 1 cells'],
    ),
    (
      f'path,label\n{ROWS}./img/ant/0.png,bee\n',
      ['line 5: img/ant/0.png is in line 2 too, with another label'],
    ),
    (
      'path,label,split\nimg/ant/0.png,ant,train\nimg/ant/0.png,ant,test\n',
      ['line 3: img/ant/0.png is in line 2 too, with another split'],
    ),
    (b'path,label\n\nimg/ant/0.png,caf\xe9\n', ['line 3: ', 'not UTF-8']),
    ('path,label\n'.encode('utf-16'), ['line 1: ', 'not UTF-8']),
  ],
)
def test_csv_that_is_wrong_is_answered(content, texts, root):
  text = error_of(write(root / 'list.csv', content))
  for expected in texts:
    assert expected in text


@pytest.mark.parametrize(
  ('line', 'expected'),
  [
    ('{"path": "a"}', 'label is None, expected a text'),
    ('{"path": 3, "label": "b"}', 'path is 3, expected a text'),
    ('{"path": "a", "label": true}', 'label is True'),
    ('{"path": "a", "label": 1.5}', 'label is 1.5'),
    ('{"path": "a\\u0000", "label": "b"}', 'path is'),
    ('{"path": "\\ud800", "label": "b"}', 'path is'),
    ('{"path": "a", "label": "b", "split": 3}', 'split is 3'),
    ('["a", "b"]', "['a', 'b'], expected an object"),
    ('{"path": "a"', 'delimiter'),
    ('path,label', 'Expecting value'),
    ('[' * 100_000, 'expected an object'),
    ('1' * 5_000, 'expected an object'),
  ],
)
def test_json_line_that_is_wrong_is_answered(line, expected, root):
  good = '{"path": "img/ant/0.png", "label": "a"}'
  text = error_of(write(root / 'list.jsonl', f'{good}\n{line}\n{good}'))
  assert 'line 2: ' in text
  assert expected in text
  assert len(text) < 500


def test_wrong_lines_are_told_at_once(root):
  text = error_of(write(root / 'a.csv', 'path,label\n' + 'x\n' * 30))
  assert '30 lines' in text
  assert 'line 11: 1 cells' in text
  assert 'line 12:' not in text
  assert 'and 20 more' in text


def test_all_checks_are_told_at_once(root):
  content = (
    'path,label,split\nimg/ant/0.png,ant,trian\nimg/bee/0.png,bee,\n'
    'img/ant/1.png,ant,train\n,,tset\nx\nimg/ant/1.png,bee,test\n'
    'img/cow/0.png,cow,train\nimg/cow/1.png,,train\n'
  )
  text = error_of(write(root / 'list.csv', content))
  path = root / 'list.csv'
  assert text.splitlines() == [
    f"{path}: 6 lines can't be used. Correct:",
    "  line 2: split is 'trian', expected train or test or val or validation",
    '  line 3: has no split, expected train or test or val or validation',
    "  line 5: path is '', expected a text; label is '', expected a text; "
    "split is 'tset', expected train or test or val or validation",
    '  line 6: 1 cells, expected the 3 of line 1',
    '  line 7: img/ant/1.png is in line 4 too, with another label and split',
    "  line 9: label is '', expected a text",
    f"2 of 6 files are not there. Paths are absolute, or relative to '{root}'.",
    '  line 8: img/cow/0.png',
    '  line 9: img/cow/1.png',
  ]


@pytest.mark.parametrize(
  'row', ['img/ant/0.png,,test', 'img/ant/0.png,ant,', 'img/ant/0.png,ant,x']
)
def test_what_is_wrong_is_not_another_label_or_split(row, root):
  other = 'img/ant/0.png,ant,test\n'
  text = error_of(write(root / 'a.csv', f'path,label,split\n{other}{row}\n'))
  assert 'line 3: ' in text
  assert 'line 2' not in text


def test_missing_files_are_told_beside_many_wrong_lines(root):
  rows = 'x\n' * 30 + ''.join(f'img/cow/{i}.png,cow\n' for i in range(13))
  text = error_of(write(root / 'a.csv', f'path,label\n{ROWS}{rows}'))
  assert "30 lines can't be used" in text
  assert 'and 20 more\n13 of 16 files are not there' in text
  assert text.endswith('line 44: img/cow/9.png\n  and 3 more')


def test_json_error_has_one_line_number(root):
  good = '{"path": "img/ant/0.png", "label": "a"}\n'
  text = error_of(write(root / 'list.jsonl', good * 3 + '{"path" 3}\n'))
  assert text.endswith(
    "line 4: not JSON (Expecting ':' delimiter), expected an object with path "
    'and label'
  )


def test_missing_files_are_told_at_once(root):
  rows = ''.join(f'img/cow/{index}.png,cow\n' for index in range(13))
  path = write(root / 'list.csv', f'path,label\n{ROWS}{rows}')
  text = error_of(path, errors.DataNotFoundError)
  assert '13 of 16 files are not there' in text
  assert 'line 5: img/cow/0.png' in text
  assert 'and 3 more' in text


def test_folders_separated_as_on_windows_are_explained(root):
  path = write(root / 'list.csv', 'path,label\nimg\\ant\\0.png,ant\n')
  assert 'by /, not by \\' in error_of(path, errors.DataNotFoundError)


def test_list_that_is_not_there(tmp_path):
  error_of(tmp_path / 'none.csv', errors.DataNotFoundError)


def test_list_of_one_class(root):
  path = write(root / 'list.csv', 'path,label\nimg/ant/0.png,ant\n')
  assert "one class, 'ant'" in error_of(path)


def test_image_may_be_listed_twice(root):
  path = write(root / 'list.csv', f'path,label\n{ROWS}{ROWS}')
  assert len(load(path, ALL)) == 6
