"""The files of C3: Chinese dialogues and texts, questions about them, and two to four answers to choose from.

    for row in read_c3(Path("c3-d-train.json")):
        print(row.values["text"], row.values["stem"], row.values["choices"], row.values["label"])

Each is a JSON list of `[[line, ...], [{"question": ..., "choice": [...], "answer": ...}, ...], id]`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bertwright.errors import BertwrightError
from bertwright.tasks.records import json_file
from bertwright.tasks.tables import Row


def read_c3(path: Path) -> list[Row]:
    r"""Return a row for each question: `text` (the lines, with `\n` between), `stem`, `choices`, `label` (a text).

    Raises:
        BertwrightError: the file is no such JSON; the place in it is named like `[3][1][0]`.
    """
    rows = []
    for number, document in enumerate(_list(json_file(path), path, "a list of documents")):
        lines, questions, *_ = [*_list(document, f"{path}, [{number}]", "a list"), None, None]
        where = f"{path}, [{number}][0]"
        text = "\n".join(_text(line, where) for line in _list(lines, where, "a list of lines"))
        for place, question in enumerate(_list(questions, f"{path}, [{number}][1]", "a list of questions")):
            where = f"{path}, [{number}][1][{place}]"
            if not isinstance(question, dict):
                raise BertwrightError("expected a question with its choices", where=where)
            values: dict[str, Any] = {"text": text, "stem": _text(question.get("question"), f"{where}.question")}
            values |= {"choices": question.get("choice"), "label": question.get("answer", "")}
            rows.append(Row(where, values))
    if not rows:
        raise BertwrightError("there is no question in it", where=path)
    return rows


def _list(value: Any, where: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BertwrightError(f"expected {what}, found {json.dumps(value, ensure_ascii=False)[:40]}", where=where,
                              fix="C3's files are read so; other questions go into JSON Lines")  # fmt: skip
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BertwrightError("expected a text that is not empty", where=where)
    return value
