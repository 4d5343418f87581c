"""What a person sees of a corpus that was checked.

print_corpus(check_corpus(["corpus/"]), "en", console.out)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from bertwright.messages import Lang, say

if TYPE_CHECKING:
    from bertwright.data.check import CorpusCheck

_WIDTH = 100
_BAR = 12
_MOST_ROWS = 8
_MOST_SCRIPTS = 5
_SMALLEST_SHARE = 0.001
_DOT = " · "


def print_corpus(check: CorpusCheck, lang: Lang, console: Console) -> None:
    """Print figures, histograms, what is doubtful with its places, and what to do."""
    facts = check.facts
    rows = _figures(facts, lang)
    label = max(cell_len(name) for name, _ in rows) + 2
    for title, parts in rows:
        name = title
        for line in _wrapped(parts, _WIDTH - label):
            console.print(Text(_padded(name, label), style="dim").append(line, style="default"))
            name = ""
    if facts["documents"]["count"]:
        console.print()
        _print_histograms(facts, lang, console)
    for title, lines in _sections(facts, lang):
        console.print()
        console.print(Text(title, style="bold yellow"))
        for line in lines:
            console.print(Text("  " + line))
    console.print()
    console.print(Text(say("corpus_to_do", lang), style="bold"))
    for finding in check.findings:
        for number, words in enumerate(Text(finding_text(finding, lang)).wrap(console, _WIDTH - 2)):
            console.print(Text("  " if number else "• ", style="bold yellow").append(words.plain.rstrip(), "default"))
    if not check.findings:
        console.print(Text("✓ ", style="bold green").append(say("todo_nothing", lang)))


def finding_text(finding: Mapping[str, Any], lang: Lang) -> str:
    """Return in words what a finding says."""
    values = {name: percent(value) if name in ("share", "random") else value for name, value in finding.items()}
    return say(f"todo_{values.pop('what')}", lang, **values)


def percent(share: float) -> str:
    """Return a share as people read it; what is there is never 0 %."""
    return "< 0.1 %" if 0 < share < _SMALLEST_SHARE else f"{100 * share:.1f} %"


def _figures(facts: Mapping[str, Any], lang: Lang) -> list[tuple[str, list[str]]]:
    files, documents, sentences = facts["files"], facts["documents"], facts["sentences"]
    encodings = [f"{name} {count:,}" for name, count in files["encodings"].items()]
    marked = files["with_byte_order_mark"]
    rows = [
        (
            "files",
            [say("corpus_file_count", lang, count=files["count"], size=_bytes(files["bytes"])), *encodings]
            + ([say("corpus_marked", lang, count=marked)] if marked else []),
        )
    ]
    longest = documents["longest"]
    more = [say("corpus_empty", lang, count=documents["empty"])] if documents["empty"] else []
    single = documents["single_sentence"]
    if single:
        more.append(say("corpus_single", lang, share=percent(single / documents["count"])))
    rows.append(
        (
            "documents",
            [f"{documents['count']:,}", say("corpus_characters", lang, count=documents["characters"]), *more],
        )
    )
    if not documents["count"]:
        return [(say(f"corpus_{name}", lang), parts) for name, parts in rows]
    rows[-1][1].append(say("corpus_longest", lang, count=longest["characters"], where=longest["where"]))
    each = "corpus_characters_each" if sentences["of_characters"] else "corpus_words_each"
    rows.append(("sentences", [f"{sentences['count']:,}", say(each, lang, mean=sentences["mean_length"])]))
    shares = [
        f"{say(f'kind_{kind}', lang)} {percent(share)}"
        for kind, share in list(facts["characters"].items())[:_MOST_SCRIPTS]
        if share >= _SMALLEST_SHARE
    ]
    rows.append(("scripts", shares))
    simplified, traditional = facts["chinese"].values()
    if facts["characters"].get("han", 0) >= _SMALLEST_SHARE and simplified + traditional:
        rows.append(("chinese", [say("corpus_forms", lang, simplified=simplified, traditional=traditional)]))
    rows.append(("pairs", _pairs(facts["next_sentence"], lang)))
    return [(say(f"corpus_{name}", lang), parts) for name, parts in rows]


def _pairs(pairs: Mapping[str, Any], lang: Lang) -> list[str]:
    tokens = say("corpus_tokens", lang, count=_rounded(pairs["tokens"], exact=not pairs["is_estimate"]))
    guessed = [say("corpus_guessed", lang)] if pairs["is_estimate"] else []
    if not pairs["possible"]:
        return [say("corpus_impossible", lang), tokens, *guessed]
    return [
        say("corpus_possible", lang, share=percent(pairs["random_next"])),
        say("corpus_examples", lang, count=_rounded(pairs["examples"]), length=pairs["max_length"]),
        tokens,
        *guessed,
    ]


def _rounded(number: int, *, exact: bool = False) -> str:
    """Return a number to two digits, since more of them would not be true."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return f"{number if exact else round(number / step) * step:,}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def _print_histograms(facts: Mapping[str, Any], lang: Lang, console: Console) -> None:
    characters = facts["sentences"]["of_characters"]
    columns = [
        _bars(say(title, lang), counts)
        for title, counts in (
            ("histogram_sentences", facts["documents"]["sentences_histogram"]),
            (
                "histogram_sentence_characters" if characters else "histogram_words",
                facts["sentences"]["length_histogram"],
            ),
            ("histogram_characters", facts["documents"]["characters_histogram"]),
        )
    ]
    width = (_WIDTH - 2) // 3
    for row in range(max(map(len, columns))):
        cells = [column[row] if row < len(column) else "" for column in columns]
        line = "".join(_padded(cell, width) for cell in cells).rstrip()
        console.print(Text(line, style="dim" if row == 0 else "cyan"))


def _bars(title: str, counts: Mapping[str, int]) -> list[str]:
    """Return a title and a bar for each bucket between the first and the last that hold anything."""
    used = list(counts.items())
    while used and not used[0][1]:
        used.pop(0)
    while len(used) > _MOST_ROWS:  # neighbours are taken together
        merged = [used[place : place + 2] for place in range(0, len(used), 2)]
        used = [(_span(names), sum(count for _, count in names)) for names in merged]
    total, most = sum(count for _, count in used), max((count for _, count in used), default=1)
    shown = [(_spelled(name), count) for name, count in used]
    label = max((len(name) for name, _ in shown), default=0)
    return [title] + [
        f"{name:>{label}} {'█' * -(-_BAR * count // most):<{_BAR}} {percent(count / total)}" for name, count in shown
    ]


def _span(buckets: Sequence[tuple[str, int]]) -> str:
    return f"{buckets[0][0].split('-')[0]}-{buckets[-1][0].split('-')[-1]}"


def _spelled(bucket: str) -> str:
    first, *last = (int(number) for number in bucket.split("-"))
    return "–".join(_short(number) for number in (first, *last))


def _short(number: int) -> str:
    if number < 10_000:
        return str(number)
    return f"{number / 1e3:.0f}k" if number < 1_000_000 else f"{number / 1e6:.0f}M"


def _sections(facts: Mapping[str, Any], lang: Lang) -> list[tuple[str, list[str]]]:
    """Return the parts that are there only if something was found, each with its lines."""
    sections = [
        ("problems", _problems(facts["problems"], lang)),
        ("doubtful", _doubtful(facts["doubtful"], lang)),
        ("duplicates", _duplicates(facts["duplicates"], lang)),
        ("repeated", [f"{each['documents']:>7,}  {_cut(each['line'], 80)}" for each in facts["repeated_lines"]]),
        ("against", [line for each in facts.get("against", []) for line in _found(each, lang)]),
        ("vocabulary", _vocabulary(facts["vocabulary"], lang) if "vocabulary" in facts else []),
    ]
    return [(say(f"corpus_{name}", lang), lines) for name, lines in sections if lines]


def _problems(problems: Mapping[str, Any], lang: Lang) -> list[str]:
    lines = [f"{each['where']}: {each['what']}" for each in problems["shown"][:10]]
    more = problems["count"] - len(lines)
    return lines + ([say("corpus_more", lang, count=more)] if more else [])


def _doubtful(doubtful: Mapping[str, Any], lang: Lang) -> list[str]:
    names = {kind: say(f"kind_{kind}", lang) for kind in doubtful}
    counts = {
        kind: say("corpus_in_documents", lang, count=each["count"], documents=each["documents"])
        for kind, each in doubtful.items()
    }
    widths = [max(map(cell_len, column.values()), default=0) + 2 for column in (names, counts)]
    return [
        _padded(names[kind], widths[0]) + _padded(counts[kind], widths[1]) + f"{each['where']}: …{each['example']}…"
        for kind, each in doubtful.items()
    ]


def _duplicates(copies: Mapping[str, Any], lang: Lang) -> list[str]:
    sample = [say("corpus_sample", lang, count=copies["compared"])] if copies["is_sample"] else []
    lines = []
    for kind in ("exact", "near"):
        if copies[kind]:
            name = say(f"corpus_{kind}", lang, **({"share": copies["similar_from"]} if kind == "near" else {}))
            lines.append(_DOT.join([name, f"{copies[kind]:,}", percent(copies[f"{kind}_share"]), *sample]))
            for pair in copies[f"{kind}_pairs"]:
                sign, alike = ("≈", f"  {pair['similarity']:.0%}") if kind == "near" else ("=", "")
                lines.append(f"  {pair['first']} {sign} {pair['second']}{alike}")
    return lines


def _found(each: Mapping[str, Any], lang: Lang) -> list[str]:
    judged = each["texts"] - each["too_short"]
    parts = [each["file"], say("corpus_found", lang, found=each["found"], judged=judged)]
    if each["too_short"]:
        parts.append(say("corpus_short", lang, count=each["too_short"]))
    lines = [_DOT.join(parts)]
    for text in each["shown"]:
        lines += [f"  {text['where']} ⊂ {text['in_corpus']}", f"    {_cut(text['text'], 60)}"]
    return lines


def _vocabulary(vocabulary: Mapping[str, Any], lang: Lang) -> list[str]:
    colon = "：" if lang == "zh" else ": "
    scripts = [
        f"{say(f'kind_{script}', lang)} {each['pieces_per_word']:.2f}"
        for script, each in list(vocabulary["scripts"].items())[:_MOST_SCRIPTS]
    ]
    lines = [
        _DOT.join(
            [
                say("corpus_unknown", lang, share=percent(vocabulary["unknown_share"])),
                say("corpus_pieces", lang, mean=vocabulary["pieces_per_word"]),
                *scripts,
            ]
        )
    ]
    if vocabulary["unknown_characters"]:
        characters = [f"{each['character']} {each['count']:,}" for each in vocabulary["unknown_characters"]]
        lines.append(say("corpus_unknown_characters", lang) + colon + _DOT.join(characters))
    if vocabulary["split_words"]:
        lines.append(say("corpus_split_words", lang) + colon.rstrip())
        lines += [f"{each['count']:>7,}  {_cut(each['word'], 80)}" for each in vocabulary["split_words"][:5]]
    return lines


def _wrapped(parts: Sequence[str], width: int) -> list[str]:
    """Return lines of parts, each begun anew where the next part has no room."""
    lines = [parts[0]]
    for part in parts[1:]:
        if cell_len(lines[-1] + _DOT + part) <= width:
            lines[-1] += _DOT + part
        else:
            lines.append(part)
    return lines


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _padded(text: str, width: int) -> str:
    return text + " " * max(width - cell_len(text), 1)
