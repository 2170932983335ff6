"""What JAX's distributed runtime says when it ends a process, said shortly.

The runtime prints a screenful and aborts, and Python is not asked. So what
native code writes to standard error passes through a process of its own, which
is this file, and which puts one message in place of it.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator

_HEADER = re.compile(r'([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (\S+):\d+\] ')
# Files of the runtime; what they log before a fatal error, that error tells.
_CHATTER = (
  'coordination_service.cc',
  'coordination_service_agent.cc',
  'preemption_notifier.cc',
  'preemption_sync_manager.cc',
)
_MAX_CONTINUED = 12  # Lines of an error besides the first.
_AGAIN = (
  'The same command, in every process, continues from the last checkpoint.'
)


def shorten(meeting_point: str) -> None:
  """Passes what native code writes to standard error through this file.

  Python's own `sys.stderr` stays what it was.

  Args:
    meeting_point: 'HOST:PORT' of the coordinator, for the messages.
  """
  sys.stderr.flush()
  ours = os.dup(2)
  process = subprocess.Popen(
    [sys.executable, '-I', '-S', __file__, meeting_point],
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    start_new_session=True,  # Ctrl-C is not for it.
  )
  assert process.stdin is not None
  os.dup2(process.stdin.fileno(), 2)  # Inherited by whoever is started later.
  process.stdin.close()
  process.returncode = 0  # It ends with us, and nobody waits for it.
  sys.stderr = os.fdopen(
    ours, 'w', buffering=1, encoding=sys.stderr.encoding, errors='replace'
  )


def shortened(lines: Iterable[str], meeting_point: str) -> Iterator[str]:
  """Yields the lines, a message in place of a fatal error of the runtime."""
  num_dropped = 0  # Lines that may follow, as part of one that is dropped.
  lines = iter(lines)
  for line in lines:
    header = _HEADER.match(line)
    if header and header[1] == 'F' and 'JAX distributed service' in line:
      yield f'error: {_message("".join([line, *lines]), meeting_point)}\n'
      return
    if header:
      num_dropped = 0
      if header[2] in _CHATTER:
        num_dropped = 1 + _MAX_CONTINUED * (header[1] == 'E')
    if num_dropped:
      num_dropped -= 1
    else:
      yield line


def _message(text: str, meeting_point: str) -> str:
  """Returns what happened, and what to do, in the user's terms."""
  lost = re.search(r'stopped sending heartbeats\):\s*((?:\d+\s*)+)', text)
  if lost:
    names = ', '.join(lost[1].split())
    return f'Process {names} has died or hangs, so this one ends. {_AGAIN}'
  if 'Unexpected task registered' in text:
    return (
      f'The coordinator at {meeting_point} expects fewer processes: give all '
      'the same --num_processes=N, and each a --process_id from 0 to N - 1.'
    )
  if 'newer incarnation' in text:
    return (
      'Two processes have the same --process_id. Each needs one of its own, '
      'from 0 to N - 1.'
    )
  reason = text.partition('absl::Status: ')[2]
  reason = reason.partition('\n')[0].partition('. ')[0]
  if 'RegisterTask' in text:
    return (
      f'The processes did not all meet at {meeting_point} within '
      '--start_timeout. Is every one of them running, with the same '
      '--num_processes=N and an id of its own, and can they reach that address?'
      f' ({reason})'
    )
  if 'PollForError' in text or 'eartbeat' in text:
    return (
      f'Process 0, at {meeting_point}, has died or can not be reached, so this '
      f'one ends. {_AGAIN} ({reason})'
    )
  return f'Another process has failed, so this one ends. {_AGAIN} ({reason})'


def _main() -> None:
  # A scheduler that ends all processes would lose the last words of ours.
  for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, signal.SIG_IGN)
  with open(0, encoding='utf-8', errors='replace') as lines:
    for line in shortened(lines, sys.argv[1]):
      print(line, end='', file=sys.stderr, flush=True)


if __name__ == '__main__':
  _main()
