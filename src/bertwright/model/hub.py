"""From what a user calls a model to a folder on this disk: a path as it is, a name on the hub downloaded once.

    local_folder("run/model")                          # as it is: a folder never touches the network
    local_folder("google-bert/bert-base-uncased")      # from the cache, or downloaded into it
    local_folder("owner/name@v1.0")                    # a branch, tag or commit

The hub's own library does the work, so `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_TOKEN` mean what they always
mean. Of several formats of the weights, one is downloaded.
"""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

from bertwright.errors import BertwrightError
from bertwright.json_values import read_json
from bertwright.model.checkpoint_files import FORMATS
from bertwright.model.folder import CONFIG_FILES, VOCABULARY_FILES

_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*(/[\w-][\w.-]*)?)(@(?P<revision>[\w./-]+))?")
_WEIGHTS = re.compile(r"(model(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin)(\.index\.json)?"
                      r"|.*\.ckpt(-\d+)?\.(index|data-\d+-of-\d+)|checkpoint")  # fmt: skip
_OTHERS = (*CONFIG_FILES, *sorted(VOCABULARY_FILES), "task.json", "modules.json", "sentence_bert_config.json",
           "config_sentence_transformers.json", "[0-9]_*/*")  # fmt: skip
_log = logging.getLogger(__name__)


def local_folder(model: str | Path) -> Path:
    """Return the folder of a model.

    Args:
        model: a folder, or a name on the hub, with `@` and a revision after it where it is not the newest.

    Raises:
        BertwrightError: there is neither such a folder nor, as far as one can see from here, such a name.
    """
    if (folder := Path(model)).exists():
        return folder
    named = _NAME.fullmatch(folder.as_posix())
    if named is None or not _is_valid(named["repository"]):
        raise BertwrightError("no such folder", where=model, fix="give a model folder, or a name such as owner/name")
    repository, revision = named["repository"], named["revision"]
    cached = _cached(repository, revision)
    if cached is not None and _is_whole(cached, repository, revision):
        return cached
    try:
        return _downloaded(repository, revision)
    except BertwrightError as error:
        if cached is None:
            raise
        _log.warning("%s: from the cache, where files may be missing that belong to it: %s", repository, error.what)
        return cached


def bert_folder(model: str | Path) -> Path:
    """Return the folder of the BERT itself, which older versions of sentence-transformers put one deeper."""
    folder = local_folder(model)
    deeper = folder / "0_Transformer"
    return deeper if deeper.is_dir() and not any((folder / name).exists() for name in CONFIG_FILES) else folder


def _is_valid(repository: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        return False
    return True


def _cached(repository: str, revision: str | None) -> Path | None:
    """Return the folder in the hub's cache, if configuration and weights are there."""
    from huggingface_hub import try_to_load_from_cache

    for name in CONFIG_FILES:
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            folder = Path(found).parent
            return folder if _has_weights(folder) else None
    return None


def _is_whole(folder: Path, repository: str, revision: str | None) -> bool:
    """Tell whether other tools that filled the cache took all that is read here: a vocabulary, and how to pool."""
    from huggingface_hub import try_to_load_from_cache

    has_vocabulary = any((folder / name).exists() for name in ("vocab.txt", "tokenizer.json"))
    return has_vocabulary and try_to_load_from_cache(repository, "modules.json", revision=revision) is not None


def _has_weights(folder: Path) -> bool:
    """Tell whether a download had come to its end, also where the weights are in several files."""
    indexes = [read_json(path) for path in folder.glob("*.safetensors.index.json")]
    indexes += [] if indexes else [read_json(path) for path in folder.glob("*.bin.index.json")]
    if indexes:
        return all((folder / name).exists() for index in indexes for name in set(index["weight_map"].values()))
    kinds = (".safetensors", ".bin", ".data-")
    return any(kind in file.name for kind in kinds for file in folder.iterdir() if _WEIGHTS.fullmatch(file.name))


def _downloaded(repository: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    where = repository if revision is None else f"{repository}@{revision}"
    try:
        _log.info("%s: no such folder here; looking on the hub", where)
        names = HfApi().model_info(repository, revision=revision, timeout=10).siblings or []
        wanted = _wanted([sibling.rfilename for sibling in names])
        with contextlib.suppress(EntryNotFoundError):  # which the cache then remembers
            hf_hub_download(repository, "modules.json", revision=revision)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[*_OTHERS, *wanted]))
    except OfflineModeIsEnabled:
        what = "no such folder, and the hub is not asked (HF_HUB_OFFLINE is set)"
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        what = f"no such folder, and the hub has no such model that may be read from here ({status})"
    except Exception as error:  # whatever a network can do
        what = f"no such folder, and the hub cannot be reached ({type(error).__name__})"
    raise BertwrightError(what, where=where, fix="give a model folder; a name on the hub needs the network once")


def _wanted(names: list[str]) -> list[str]:
    """Return the files of the best format: all shards of it, none of the others."""
    for main in FORMATS:
        if main in names:
            stem = main.split(".")[0]
            return [
                name
                for name in names
                if _WEIGHTS.fullmatch(name) and name.startswith(stem) and main.split(".")[1] in name
            ]
    return [name for name in names if _WEIGHTS.fullmatch(name)]
