"""Why a place doesn't give a file."""


class UnavailableError(Exception):
  """A place doesn't give the file; the text says why.

  Attributes:
    status: of the HTTP answer, or None if it wasn't that.
    is_final: whether asking in another way, or again, gives the same.
  """

  def __init__(
    self, reason: str, status: int | None = None, *, is_final: bool = False
  ):
    super().__init__(reason)
    self.status, self.is_final = status, is_final


def reason_of(error: Exception) -> str:
  """Returns what went wrong on the way to a server, in one line."""
  text = str(error)
  if 'Name or service not known' in text or 'NameResolution' in text:
    return "the host's name is unknown (is there a network?)"
  if 'Connection refused' in text:
    return 'connection refused'
  if 'CERTIFICATE_VERIFY_FAILED' in text:
    return 'its certificate could not be verified'
  return f'{type(error).__name__}: {text[:200]}'
