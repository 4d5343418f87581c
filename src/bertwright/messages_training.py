"""What a training run is found to be, in English and Chinese; `messages` makes these words part of its own."""

from __future__ import annotations

TRAINING_MESSAGES: dict[str, tuple[str, str]] = {
    # Which tokens are predicted well
    "report_breakdown": ("Which tokens are predicted well", "哪些词元预测得好"),
    "report_breakdown_note": (
        "Held-out data at step {step:,}. An entry of the vocabulary is a word if it has a letter; `other` are symbols, "
        "[UNK] and the like. A random token in place of a word is hard to see through, an unchanged one easy to repeat.",
        "第 {step:,} 步时的留出数据。词表中含字母的词条算作单词；“其他”为符号、[UNK] 等。换成随机词元的较难识破，保持原样的只需照抄。",
    ),
    "report_tokens": ("tokens", "词元数"),
    "by_length": ("Length of the sequence, tokens", "序列长度（词元）"),
    "by_shown": ("Shown in its place", "原处显示"),
    "by_kind": ("What is to be predicted", "待预测的词元"),
    "shown_mask": ("[MASK]: hidden", "[MASK]：被遮住"),
    "shown_random": ("random token", "随机词元"),
    "shown_unchanged": ("the token itself", "原词元"),
    "kind_word": ("word or its beginning", "单词或词首"),
    "kind_piece": ("## piece", "## 词片"),
    "kind_number": ("number", "数字"),
    "kind_punctuation": ("punctuation", "标点"),
    "kind_chinese": ("Chinese character", "汉字"),
    "kind_other": ("other", "其他"),
    # Why fine-tuning came to nothing: in English, words that follow "the model "
    "report_problem_why": ("The model {problem}.", "原因：{problem}。"),
    "problem_restart": (
        "{out}: the model {problem}: starting again with seed {seed}",
        "{out}：{problem}：换用种子 {seed} 重新开始",
    ),
    "problem_stays": ("{out}: the model {problem}: its scores mean little", "{out}：{problem}：得分意义不大"),
    "problem_loss": (
        "has a training loss of {loss:.3f}, no better than guessing ({chance:.3f})",
        "训练损失为 {loss:.3f}，不比猜测好（{chance:.3f}）",
    ),
    "problem_one_label": (
        "answers {label!r} to every dev example, which is right for {share:.0%} of them",
        "对开发集的每个样本都回答 {label!r}，其中 {share:.0%} 是对的",
    ),
    "problem_one_choice": (
        "takes choice {choice} of every dev example, which is right for {share:.0%} of them",
        "对开发集的每个样本都选第 {choice} 项，其中 {share:.0%} 是对的",
    ),
    "problem_one_number": (
        "answers about {number:.3g} to every dev example",
        "对开发集的每个样本都回答约 {number:.3g}",
    ),
    "problem_one_answer": ("answers {answer!r} to every dev question", "对开发集的每个问题都回答 {answer!r}"),
    "problem_no_answer": (
        "finds no answer to any dev question, though {answerable} of {count} have one",
        "没有为开发集的任何问题找到答案，而 {count} 个问题中有 {answerable} 个有答案",
    ),
    "problem_low_f1": ("answers hardly any dev question: F1 is {f1:.3f}", "几乎没有答对开发集的问题：F1 值为 {f1:.3f}"),
    "problem_one_tag": ("gives every word of dev the tag {tag!r}", "给开发集的每个词都标 {tag!r}"),
    "problem_no_entity": ("finds none of the {count:,} entities in dev", "开发集的 {count:,} 个实体一个也没有找到"),
}
