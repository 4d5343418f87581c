"""The words of `check CORPUS`, in English and Chinese; `messages` makes them part of its own."""

from __future__ import annotations

CORPUS_MESSAGES: dict[str, tuple[str, str]] = {
    # Names of what is shown
    "corpus_files": ("files", "文件"),
    "corpus_documents": ("documents", "文档"),
    "corpus_sentences": ("sentences", "句子"),
    "corpus_scripts": ("characters", "字符"),
    "corpus_chinese": ("Chinese", "中文"),
    "corpus_pairs": ("next sentence", "下一句预测"),
    "corpus_doubtful": ("doubtful", "可疑字符"),
    "corpus_duplicates": ("copies", "重复文档"),
    "corpus_repeated": ("lines in many documents", "多篇文档共有的行"),
    "corpus_vocabulary": ("vocabulary", "词表"),
    "corpus_against": ("found in the corpus", "语料中已出现"),
    "corpus_problems": ("cannot be read", "无法读取"),
    "corpus_to_do": ("What to do", "建议"),
    # Figures
    "corpus_file_count": ("{count:,}, {size}", "{count:,} 个，{size}"),
    "corpus_marked": ("{count:,} with a byte order mark", "{count:,} 个带 BOM"),
    "corpus_characters": ("{count:,} characters", "{count:,} 个字符"),
    "corpus_empty": ("{count:,} empty", "空文档 {count:,} 篇"),
    "corpus_single": ("{share} have one sentence", "仅一句的占 {share}"),
    "corpus_longest": ("longest: {count:,} characters ({where})", "最长 {count:,} 个字符（{where}）"),
    "corpus_words_each": ("{mean:.1f} words each", "平均 {mean:.1f} 词"),
    "corpus_characters_each": ("{mean:.1f} characters each", "平均 {mean:.1f} 字"),
    "corpus_forms": (
        "{simplified:,} documents simplified, {traditional:,} traditional",
        "简体 {simplified:,} 篇，繁体 {traditional:,} 篇",
    ),
    "corpus_possible": ("possible, {share} of the pairs random", "可行，约 {share} 的样本对为随机下一句"),
    "corpus_impossible": ("not possible", "不可行"),
    "corpus_examples": ("about {count} examples of {length}", "约 {count} 个样本（每个最多 {length} 词元）"),
    "corpus_tokens": ("{count} tokens", "{count} 个词元"),
    "corpus_guessed": ("guessed without --vocab", "未给 --vocab，系估计"),
    "corpus_in_documents": ("{count:,} in {documents:,} documents", "{documents:,} 篇文档中 {count:,} 处"),
    "corpus_exact": ("exact", "完全相同"),
    "corpus_near": ("near, from {share:.0%}", "近似（≥ {share:.0%}）"),
    "corpus_sample": ("among a sample of {count:,}", "抽样 {count:,} 篇"),
    "corpus_unknown": ("{share} [UNK]", "[UNK] 占 {share}"),
    "corpus_pieces": ("{mean:.2f} tokens a word", "每词 {mean:.2f} 个词元"),
    "corpus_unknown_characters": ("unknown characters", "未知字符"),
    "corpus_split_words": ("frequent words in pieces", "被切碎的常见词"),
    "corpus_found": ("{found:,} of {judged:,} texts", "{judged:,} 条中有 {found:,} 条"),
    "corpus_short": ("{count:,} too short to tell", "{count:,} 条太短，无法判断"),
    "corpus_more": ("and {count:,} more", "另有 {count:,} 处"),
    # Histograms
    "histogram_sentences": ("sentences a document", "每篇文档的句数"),
    "histogram_words": ("words a sentence", "每句的词数"),
    "histogram_sentence_characters": ("characters a sentence", "每句的字数"),
    "histogram_characters": ("characters a document", "每篇文档的字符数"),
    # Kinds of characters
    "kind_latin": ("Latin", "拉丁字母"),
    "kind_han": ("Chinese", "汉字"),
    "kind_kana": ("kana", "假名"),
    "kind_hangul": ("Hangul", "谚文"),
    "kind_cyrillic": ("Cyrillic", "西里尔字母"),
    "kind_greek": ("Greek", "希腊字母"),
    "kind_arabic": ("Arabic", "阿拉伯字母"),
    "kind_hebrew": ("Hebrew", "希伯来字母"),
    "kind_devanagari": ("Devanagari", "天城文"),
    "kind_thai": ("Thai", "泰文"),
    "kind_other_letters": ("other letters", "其他文字"),
    "kind_digits": ("digits", "数字"),
    "kind_punctuation": ("punctuation", "标点"),
    "kind_symbols": ("symbols", "符号"),
    "kind_other": ("other", "其他"),
    "kind_mojibake": ("mojibake", "乱码"),
    "kind_replacement": ("U+FFFD", "替换符 U+FFFD"),
    "kind_control": ("control", "控制字符"),
    "kind_private": ("private use", "私用区字符"),
    "kind_half_surrogate": ("half surrogates", "半个代理对"),
    "kind_invisible": ("invisible", "不可见字符"),
    # What to do
    "todo_nothing": ("Nothing: no fault was found.", "无：没有发现问题。"),
    "todo_unreadable": (
        "{count:,} places cannot be read: mend or remove them.",
        "{count:,} 处无法读取：请修复或删除。",
    ),
    "todo_no_text": ("There is no text in this corpus.", "语料中没有文本。"),
    "todo_leak": (
        "{found:,} of {judged:,} texts of {file} are in the corpus: remove those documents, or scores on it flatter.",
        "{file} 的 {judged:,} 条文本中有 {found:,} 条出现在语料里：请删除相应文档，否则得分会偏高。",
    ),
    "todo_too_short": (
        "No text of {file} is long enough to look for: 8 words or 20 Chinese characters are needed.",
        "{file} 中没有足够长的文本可供查找：至少需要 8 个单词或 20 个汉字。",
    ),
    "todo_cut": (
        "{count:,} documents have over 4 million characters and were looked at in pieces: separate documents by blank "
        "lines in .txt, or one to a line in .jsonl.",
        "{count:,} 篇文档超过 400 万字符，已分段检查：.txt 请用空行分隔文档，.jsonl 请每行一篇。",
    ),
    "todo_one_document": (
        "Next sentence prediction is not possible with a single document: separate documents by blank lines, or use "
        "`data build --objective mlm`.",
        "只有一篇文档，无法做下一句预测：请用空行分隔文档，或使用 `data build --objective mlm`。",
    ),
    "todo_no_pairs": (
        "Next sentence prediction is not possible, every document has one sentence: use `data build --objective mlm`.",
        "每篇文档只有一句，无法做下一句预测：请使用 `data build --objective mlm`。",
    ),
    "todo_mostly_single": (
        "{share} of the documents have one sentence, so {random} of the pairs are random: use `data build "
        "--next-sentence-rule paper`, or `--objective mlm`.",
        "{share} 的文档只有一句，因此 {random} 的样本对是随机的：请使用 `data build --next-sentence-rule paper` 或 "
        "`--objective mlm`。",
    ),
    "todo_exact_copies": (
        "{share} of the documents are exact copies: remove them.",
        "{share} 的文档与其他文档完全相同：请去重。",
    ),
    "todo_near_copies": (
        "{share} of the documents are near copies: look at the pairs, keep one of each.",
        "{share} 的文档与其他文档近似：请查看列出的文档对，各留一篇。",
    ),
    "todo_repeated_line": (
        "A line is in {share} of the documents, as boilerplate is: remove “{line}” and its like.",
        "有一行出现在 {share} 的文档中，像是页面模板：请删除“{line}”及类似的行。",
    ),
    "todo_damaged": (
        "{count:,} places look like text decoded wrongly: make these documents again from their source.",
        "{count:,} 处像是解码出错的文本：请从来源重新生成这些文档。",
    ),
    "todo_stray": (
        "{count:,} characters are controls, private or invisible: tokenizers drop them or make them [UNK].",
        "{count:,} 个控制、私用区或不可见字符：分词时会被丢弃或变成 [UNK]。",
    ),
    "todo_mixed_chinese": (
        "Simplified and traditional Chinese are mixed: convert one into the other if your task has one alone.",
        "简体与繁体混用：若任务只用其中一种，请先转换。",
    ),
    "todo_unknown": (
        "{share} of the tokens are [UNK]: train a vocabulary on this corpus, or choose one of its language.",
        "{share} 的词元是 [UNK]：请在此语料上训练词表，或换用该语言的词表。",
    ),
    "todo_fragmented": (
        "A word becomes {pieces:.1f} tokens on average: a vocabulary trained on this corpus would make shorter inputs.",
        "平均每个词被切成 {pieces:.1f} 个词元：在此语料上训练词表可以缩短输入。",
    ),
}
