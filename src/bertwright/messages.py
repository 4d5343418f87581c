"""The words people see on the screen and in reports, in English and Chinese.

    lang = language(None)              # from the locale
    say("saved", lang, path="run/model")

Errors stay in English, beside the code that raises them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from bertwright.messages_corpus import CORPUS_MESSAGES
from bertwright.messages_plan import PLAN_MESSAGES
from bertwright.messages_reproduce import REPRODUCE_MESSAGES
from bertwright.messages_training import TRAINING_MESSAGES

Lang = Literal["en", "zh"]

# One line per message: English first, Chinese second, with the same {placeholders}.
MESSAGES: dict[str, tuple[str, str]] = {
    # Results of commands
    "saved": ("Saved {path}", "已保存 {path}"),
    "report": ("Report: {path}", "报告：{path}"),
    "stopped": (
        "Stopped. Everything up to the last checkpoint is saved; type the same command with --resume to go on.",
        "已停止。最近一个检查点之前的进度都已保存；在同一命令后加 --resume 即可继续。",
    ),
    "build_stopped": (
        "Stopped. What is finished is kept; type the same command to go on.",
        "已停止。已完成的部分都已保留；再次输入同一命令即可继续。",
    ),
    "interrupted": ("Stopped.", "已停止。"),
    # The live view
    "step": ("step", "步"),
    "left": ("left", "剩余"),
    "build_documents": ("{count:,} documents", "{count:,} 篇文档"),
    "build_examples": ("{count:,} examples", "{count:,} 个样本"),
    "loss": ("loss", "损失"),
    "accuracy": ("accuracy", "准确率"),
    "gradient": ("gradient", "梯度"),
    "tokens_per_second": ("tokens/s", "词元/秒"),
    "of_peak": ("{share:.0%} of peak", "峰值的 {share:.0%}"),
    "of_peak_title": ("share of the machine's peak", "机器峰值占比"),
    "learning_rate": ("learning rate", "学习率"),
    "held_out": ("held‑out", "留出集"),
    "dev": ("dev", "开发集"),
    "train": ("train", "训练"),
    # Scores by name
    "score_accuracy": ("accuracy", "准确率"),
    "score_exact": ("EM", "精确匹配率"),
    "score_f1": ("F1", "F1 值"),
    "score_micro_f1": ("micro F1", "微平均 F1"),
    "score_macro_f1": ("macro F1", "宏平均 F1"),
    "score_mcc": ("MCC", "马修斯相关系数"),
    "score_pearson": ("Pearson", "皮尔逊相关系数"),
    "score_spearman": ("Spearman", "斯皮尔曼相关系数"),
    "score_precision": ("precision", "精确率"),
    "score_recall": ("recall", "召回率"),
    "score_answerable_exact": ("EM if answerable", "有答案时的精确匹配率"),
    "score_answerable_f1": ("F1 if answerable", "有答案时的 F1 值"),
    "score_unanswerable_accuracy": ("right if unanswerable", "无答案时的准确率"),
    "score_mse": ("MSE", "均方误差"),
    **PLAN_MESSAGES,
    **TRAINING_MESSAGES,
    # `data show`
    "is_next": ("B follows A", "B 是 A 的下文"),
    "not_next": ("B is random", "B 是随机抽取的"),
    "legend": ("under a token stands what is to be guessed:", "词元下方是待预测的原词："),
    "legend_mask": ("hidden", "被遮住"),
    "legend_random": ("swapped for a random token", "换成随机词元"),
    "legend_kept": ("left as it is", "保持原样"),
    "segment_a": ("segment A", "片段 A"),
    "segment_b": ("segment B", "片段 B"),
    "next_sentence": ("next sentence: {label}", "下一句：{label}"),
    "tokens": ("{count:,} tokens", "{count:,} 个词元"),
    "to_guess": ("{count:,} to be guessed", "{count:,} 个待预测"),
    "whole_words": ("whole words: {how}", "全词遮蔽：{how}"),
    # A look at labelled data
    "check_examples": ("examples", "样本数"),
    "check_dev_examples": ("dev examples", "开发集样本数"),
    "check_repeated": ("repeated inputs", "重复的输入"),
    "check_contradictory": ("of them with another answer", "其中答案不一致"),
    "check_also_in_dev": ("also in dev", "同时出现在开发集中"),
    "check_inputs": ("inputs of the model", "模型输入数"),
    "check_truncated": ("cut to fit", "被截断"),
    "check_median_length": ("median length, tokens", "长度中位数（词元）"),
    "check_longest": ("longest, tokens", "最长（词元）"),
    "check_unknown_tokens": ("[UNK] tokens", "[UNK] 词元"),
    "check_balance": ("answers", "答案分布"),
    "check_contradiction": ("the same input, another answer", "输入相同而答案不同"),
    "check_overlap": ("the same input in train and dev", "训练集与开发集中输入相同"),
    "check_shown": ("as the model sees the first examples", "模型看到的前几个样本"),
    "trials_degenerate": ("{count} came to nothing", "{count} 次没有学到东西"),
    # The proof sheet of `convert`
    "sheet_source": ("source", "来源"),
    "sheet_target": ("target", "去向"),
    "sheet_shape": ("shape", "形状"),
    "sheet_type": ("type", "类型"),
    "sheet_counts": ("{moved} tensors taken over, {left} left", "接收 {moved} 个张量，略过 {left} 个"),
    "sheet_mlm": ("masked-LM head", "MLM 输出头"),
    "sheet_nsp": ("next-sentence head", "NSP 输出头"),
    "sheet_there": ("there", "有"),
    "sheet_no_mlm": ("not there: `fill` cannot work with this model", "没有：此模型不能用于 `fill`"),
    "sheet_no_nsp": ("not there: `nsp` cannot work with this model", "没有：此模型不能用于 `nsp`"),
    "sheet_heads": ("other heads", "其他输出头"),
    "sheet_no_pooler": (
        "no pooler: it starts fresh; vectors pooled through it mean nothing before training",
        "没有池化层：已随机初始化，训练之前经它得到的向量没有意义",
    ),
    "sheet_ignored": ("keys that change no number here: {keys}", "不影响数值的配置项：{keys}"),
    "sheet_parity": (
        "Both sides were run on the same inputs; the largest difference of any number: {difference}",
        "两边用相同输入各运行一遍，所有数值的最大差：{difference}",
    ),
    **CORPUS_MESSAGES,
    # The report
    "report_pretrain": ("Pre-training", "预训练"),
    "report_finetune": ("Fine-tuning", "微调"),
    "report_curves": ("Curves", "曲线"),
    "report_samples": ("Sample predictions", "预测示例"),
    "report_before": ("Before training", "训练前"),
    "report_after": ("After training", "训练后"),
    "report_hidden": ("Hidden word", "被遮住的词"),
    "report_guesses": ("Guesses", "模型的猜测"),
    "report_sentence": ("Sentence", "句子"),
    "report_scores": ("Dev scores after each epoch", "每轮结束时的开发集得分"),
    "report_confusion": ("Confusion matrix", "混淆矩阵"),
    "report_confusion_note": (
        "Rows: the true label. Columns: the predicted one. Numbers are counts; the tint is the share of the row.",
        "行：真实标签；列：预测标签。数字为条数，颜色深浅表示在该行中的占比。",
    ),
    "report_mix_ups": ("Most frequent mix-ups", "最常混淆的类别"),
    "report_mix_ups_note": (
        "{count} labels are too many for a matrix; these are the pairs that were mixed up most often.",
        "共 {count} 个标签，不便列成矩阵；下面是混淆次数最多的各对标签。",
    ),
    "report_classes": ("Scores per class", "各类得分"),
    "report_class": ("Class", "类别"),
    "report_support": ("Examples", "条数"),
    "report_predicted": ("Predicted", "预测数"),
    "report_right": ("Right", "正确数"),
    "report_calibration": ("Calibration", "校准"),
    "report_calibration_note": (
        "Across: how sure the model is. Up: how often it is then right. A model on the dashed line is as sure as it is "
        "right; below it, it is too sure. Larger dots stand for more examples.",
        "横轴：模型给出的置信度；纵轴：相应的准确率。虚线上表示置信度与准确率一致，低于虚线表示过于自信。点越大，样本越多。",
    ),
    "report_temperature": ("Temperature", "温度"),
    "report_calibration_error": ("Expected calibration error", "期望校准误差"),
    "report_confidence": ("Confidence", "置信度"),
    "report_mean_confidence": ("Mean confidence", "平均置信度"),
    "report_points": ("Answers against right numbers", "预测值与真实值"),
    "report_points_note": (
        "Across: the right number. Up: the answer. On the dashed line both are the same.",
        "横轴：真实值；纵轴：预测值。虚线上两者相等。",
    ),
    "report_points_some": (
        "{shown:,} of {count:,} examples are shown.",
        "共 {count:,} 个样本，图中为其中 {shown:,} 个。",
    ),
    "report_details": ("Details of the evaluation", "评测详情"),
    "detail_num_examples": ("dev examples", "开发集样本数"),
    "detail_counts.gold": ("entities", "实体数"),
    "detail_counts.predicted": ("entities found", "预测出的实体数"),
    "detail_counts.right": ("of them right", "其中正确"),
    "detail_questions": ("questions", "问题数"),
    "detail_unanswerable": ("of them without an answer", "其中没有答案的"),
    "detail_given_no_answer": ("questions given no answer", "模型认为没有答案的"),
    "detail_null_threshold": ("threshold for no answer", "判为无答案的阈值"),
    "report_errors": ("Worst errors", "最严重的错误"),
    "report_errors_note": ("Dev examples that were answered most wrongly.", "开发集中错得最严重的样本。"),
    "report_where": ("Where", "位置"),
    "report_asked": ("Input", "输入"),
    "report_gold": ("Right answer", "正确答案"),
    "report_answer": ("Model's answer", "模型的回答"),
    "report_score": ("Probability", "概率"),
    "report_nothing": ("none", "无"),
    "report_problem": ("This run came to nothing: its scores mean little.", "这次训练没有学到东西，得分意义不大。"),
    "report_restarts": (
        "Earlier attempts came to nothing and were set aside; another seed was used for this one.",
        "之前的尝试没有学到东西，已另存；这次换了随机种子。",
    ),
    "report_trials": ("Trials", "各次试验"),
    "report_trials_note": (
        "Mean over seeds ± standard deviation, on dev. Best setting first; the rest of this page is about its best "
        "seed. The choice was made on dev, so these scores flatter the best a little.",
        "开发集上各随机种子的均值 ± 标准差，最好的设置在前；本页其余内容为其中最好的一次。因为用开发集挑选，最好者的得分略偏高。",
    ),
    "report_setting": ("Setting", "设置"),
    "report_seeds": ("Seeds", "种子数"),
    "report_degenerate": ("{count} came to nothing", "{count} 次没有学到东西"),
    "report_more": ("… and {count:,} more", "…… 另有 {count:,} 个"),
    "report_examples_note": (
        "What the model is to say stands under the token where it says it.",
        "词元下方是模型应在该处给出的答案。",
    ),
    "report_data": ("Data", "数据"),
    "report_configuration": ("Configuration", "配置"),
    "report_best_configuration": ("Configuration of the best trial", "最好一次试验的配置"),
    "report_versions": ("Versions", "版本"),
    "report_comparison": ("Pre-trained against random weights", "预训练与随机初始化的对比"),
    "report_steps": ("steps", "步数"),
    "report_time": ("training time", "训练用时"),
    "report_epoch": ("Epoch", "轮次"),
    # The demo: two sentences a stage
    "demo_welcome": (
        "The whole life of a BERT in miniature, offline, on the English that every Python carries: "
        "its manual and its docstrings. It takes about {minutes} minutes on two cores.",
        "用每个 Python 自带的英文（手册与文档字符串），离线走完 BERT 的一生。两个处理器核心约需 {minutes} 分钟。",
    ),
    "demo_stage_corpus": ("A corpus", "语料"),
    "demo_corpus": (
        "A BERT learns from plain text, so we collect some: every topic of the manual and every module's "
        "docstrings is one document. One sentence a line, a blank line between documents.",
        "BERT 从纯文本学习，所以先收集文本：手册的每个主题、每个模块的文档字符串各算一篇文档。"
        "一句一行，文档之间空一行。",
    ),
    "demo_corpus_done": (
        "{documents:,} documents, {characters:,} characters in {path}",
        "{documents:,} 篇文档，{characters:,} 个字符，写入 {path}",
    ),
    "demo_stage_vocab": ("A vocabulary", "词表"),
    "demo_vocab": (
        "Words are cut into pieces that occur often, so that a few thousand entries can spell any text. "
        "WordPiece learns which pieces are worth having.",
        "单词被切成常见的词片，几千个词条就能拼出任何文本。WordPiece 从语料中学习该保留哪些词片。",
    ),
    "demo_vocab_done": (
        "{size:,} entries; for instance {text!r} becomes {pieces}",
        "{size:,} 个词条；例如 {text!r} 切成 {pieces}",
    ),
    "demo_stage_data": ("Examples", "训练样本"),
    "demo_data": (
        "An example is two pieces of text: half the time B really follows A, otherwise it comes from another document. "
        "15 % of the tokens must be guessed: most are hidden, some are swapped, some are left as they are.",
        "一个样本是两段文本：一半情况下 B 真是 A 的下文，否则取自另一篇文档。"
        "15 % 的词元需要预测：大多被遮住，有的被替换，有的保持原样。",
    ),
    "demo_data_done": (
        "{examples:,} examples, {tokens:,} tokens; this is one of them:",
        "{examples:,} 个样本，{tokens:,} 个词元；其中一个如下：",
    ),
    "demo_stage_pretrain": ("Pre-training", "预训练"),
    "demo_pretrain": (
        "A Transformer of {layers} layers, {parameters:.1f} million numbers drawn at random, now learns to fill the gaps "
        "(MLM) and to tell whether B follows A (NSP). Nobody labelled anything: the text itself is the teacher.",
        "一个 {layers} 层的 Transformer 从 {parameters:.1f} 百万个随机数出发，学习填空（MLM）并判断 B 是否为 A 的下文（NSP）。"
        "没有人做过标注：文本自己就是老师。",
    ),
    "demo_stage_fill": ("Fill the gap, before and after", "填空：训练前后对比"),
    "demo_fill": (
        "Both models see the same sentences with one word hidden. The one with random weights guesses blindly; "
        "the trained one has picked up how the manual talks.",
        "两个模型看到同样被遮住一个词的句子。随机权重的模型只能乱猜；训练过的模型已学会手册的说法。",
    ),
    "demo_stage_finetune": ("Fine-tuning", "微调"),
    "demo_finetune": (
        "One added layer turns the encoder into a classifier: which family of modules does a sentence of documentation "
        "belong to? {train:,} labelled sentences to learn from, since labels are dear, and {dev:,} from modules it has "
        "never seen to be tested on.",
        "加上一层就成了分类器：一句文档属于哪一类模块？标注昂贵，所以只用 {train:,} 个带标签的句子学习，"
        "再用 {dev:,} 个来自从未见过的模块的句子测试。",
    ),
    "demo_from_pretrained": ("From the pre-trained encoder", "从预训练编码器开始"),
    "demo_from_random": ("From random weights", "从随机权重开始"),
    "demo_majority": ("Always naming the commonest class", "总猜最常见的类别"),
    "demo_title": ("A BERT's life in miniature", "BERT 的一生（缩影）"),
    "demo_gain": (
        "Pre-training is worth {gain:+.1f} points of accuracy: {pretrained:.1%} against {random:.1%} from random weights "
        "(always naming the commonest class: {majority:.1%}).",
        "预训练带来 {gain:+.1f} 个百分点的准确率提升：{pretrained:.1%}，随机权重为 {random:.1%}（总猜最常见类别为 {majority:.1%}）。",
    ),
    "demo_done": (
        "Done in {minutes:.1f} minutes. Everything lies in {path}; open the report:",
        "完成，用时 {minutes:.1f} 分钟。全部文件在 {path}；请打开报告：",
    ),
    "demo_try": ("Now try it yourself:", "现在自己试试："),
    **REPRODUCE_MESSAGES,
}


def language(choice: str | None = None) -> Lang:
    """Return the language to speak: the one asked for, or the one of the locale.

    Args:
        choice: `en`, `zh`, or None to look at `LC_ALL`, `LC_MESSAGES` and `LANG`.
    """
    if choice is None:
        choice = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "en")
    return "zh" if choice.lower().startswith("zh") else "en"


def say(key: str, lang: Lang, **values: object) -> str:
    """Return a message in a language, its placeholders filled in."""
    text = MESSAGES[key][lang == "zh"]
    return text.format(**values) if values else text


class Problem(str):
    """Why training came to nothing, in words that follow "the model "; `zh` is the same in Chinese.

    Args:
        key: of the message.
        values: for its placeholders.
    """

    zh: str

    def __new__(cls, key: str, **values: object) -> Problem:
        """Say it in both languages."""
        problem = super().__new__(cls, say(key, "en", **values))
        problem.zh = say(key, "zh", **values)
        return problem


SCORES = tuple(key.removeprefix("score_") for key in MESSAGES if key.startswith("score_"))
"""Names of scores that have words of their own, best known first."""
_PLAIN = ("mcc", "pearson", "spearman", "mse")
LEARNT = ("mlm", "ltr", "nsp")
"""What pre-training learns: rows hold the loss and the accuracy of each under its name, such as `mlm_loss`."""
_NO_SCORES = ("kind", "step", "epoch", "loss", "lr", "grad_norm", "tokens_per_second", "mfu", "seconds", "data_seconds")


def is_pretraining(row: Mapping[str, Any]) -> bool:
    """Return whether a row of figures is one of pre-training."""
    return any(f"{name}_loss" in row for name in LEARNT)


def score_names(row: Mapping[str, Any]) -> list[str]:
    """Return the names of a fine-tuning row's scores, best known first and those of unknown tasks last.

    Accuracy comes last where it counts words that are mostly no names, or whole sets of labels.
    """
    numbers = [name for name, value in row.items() if isinstance(value, (int, float)) and name not in _NO_SCORES]
    known = [name for name in SCORES if name in numbers]
    if "accuracy" in known and {"precision", "micro_f1"} & {*known}:
        known.remove("accuracy")
        known.append("accuracy")
    if "precision" in known and "f1" in known:
        known.remove("f1")
        known.insert(0, "f1")
    return known + [name for name in numbers if name not in known]


def score_label(name: str, lang: Lang) -> str:
    """Return a score's proper name, or the one it has in its task."""
    return say(f"score_{name}", lang) if name in SCORES else name


def score_text(name: str, value: float, *, sign: str = "%") -> str:
    """Return a score to read: shares in percent with this sign behind them, correlations and errors as they are."""
    if name not in SCORES or name == "mse":
        return f"{value:.4g}"
    return f"{value:.3f}" if name in _PLAIN else f"{100 * value:.1f}{sign}"
