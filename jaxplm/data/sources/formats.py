"""File formats and compressions, as a file's name tells them."""

from pathlib import Path

from jaxplm.errors import UserError

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".conll")
COMPRESSIONS = (".gz", ".zst")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".npz", ".ckpt")


def split_suffix(path: Path) -> tuple[str, str]:
    """Return the format and the compression that a name tells: `a.JSONL.gz` → `(".jsonl", ".gz")`."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        return (suffixes[-2] if len(suffixes) > 1 else "", suffixes[-1])
    return (suffixes[-1] if suffixes else "", "")


def check_format(path: Path) -> str:
    """Return the format of a path, for example `".jsonl"`.

    Raises:
      UserError: a pickle, an unknown ending, or a Parquet file inside another compression.
    """
    kind, compression = split_suffix(path)
    if kind in PICKLES:
        raise UserError(
            f"{path} is refused: {kind} files can run code when they are opened; save the texts as .jsonl or .parquet"
        )
    if kind not in FORMATS:
        raise UserError(
            f"{path}: the format cannot be told from its name; known: {' '.join(FORMATS)}, plain or {' '.join(COMPRESSIONS)}"
        )
    if kind == ".parquet" and compression:
        raise UserError(f"{path}: parquet is compressed inside; unpack the {compression} around it")
    return kind
