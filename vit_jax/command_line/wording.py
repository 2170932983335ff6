"""Messages of the package, which name fields of a config, told as options."""

import re
from collections.abc import Container

# By the field of a config, the options that say the same; the first counts that
# a command line has.
_OPTIONS = {
  'batch_eval': ('batch',),
  'dataset': ('dataset', 'labels'),
  'follow_links': ('follow_links',),
  'label': ('label',),
  'pp.crop': ('image_size',),
  'pp.test': ('test_split', 'split'),
  'pp.train': ('train_split',),
  'tfds_data_dir': ('tfds_data_dir',),
  'tfds_manual_dir': ('tfds_manual_dir',),
}


def as_options(text: str, options: Container[str]) -> str:
  """Returns a message with options where it has fields of a config.

  So '--config.tfds_data_dir=DIR' becomes '--tfds_data_dir DIR' and
  'config.label' '--label'. Fields without an option stay as they are, but
  '--config.FIELD=' becomes '--set FIELD=' where there is that.

  Args:
    text: of an error or a warning.
    options: of the command line, without the dashes.
  """

  def replaced(found: re.Match) -> str:
    flag, field, equals = found.groups('')
    for option in _OPTIONS.get(field, ()):
      if option in options:
        if equals == '=True':  # Such options take no value.
          return f'--{option}'
        return f'--{option}{" " if flag and equals else equals}'
    if flag and 'set' in options:
      return f'--set {field}{equals}'
    return found[0]

  return re.sub(r'(--)?\bconfig\.(\w+(?:\.\w+)*)(=True\b|=)?', replaced, text)
