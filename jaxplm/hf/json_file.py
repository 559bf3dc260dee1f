"""Read a JSON object of a model directory, or say in one line why that is not possible."""

import json
from pathlib import Path
from typing import Any

from jaxplm.errors import UserError

MOST_BYTES = 256 * 2**20  # the largest tokenizer.json has 20 MB, the index of a model of thousands of shards less


def read_object(file: Path, source: str, holds: str = "object") -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
      file: an existing file.
      source: the name of its directory in messages.
      holds: what the object is, for the message about a file that holds none.

    Raises:
      UserError: it cannot be read, is too large or too deep, is not JSON, or holds something other than an object.
    """
    name = f"{source}: {file.name}"
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise UserError(f"{name} has {size:,} bytes, more than {MOST_BYTES:,}: it is not the file of a model")
        content = json.loads(file.read_text("utf-8-sig"))
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror or error})") from None
    except RecursionError:
        raise UserError(f"{name} is not the file of a model: its JSON is nested too deeply") from None
    except UnicodeEncodeError:
        raise UserError(f"{name} is damaged: it has half of a character (a lone surrogate)") from None
    except ValueError as error:  # of JSON and of UTF-8
        raise UserError(f"{name} is not JSON ({error}) and holds no {holds}; copy the file again") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} does not hold an {holds}")
    return content
