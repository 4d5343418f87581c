"""The words of `reproduce`, in English and Chinese; `messages` makes them part of its own."""

from __future__ import annotations

REPRODUCE_MESSAGES: dict[str, tuple[str, str]] = {
    "reproduce_title": ("{place} of the BERT paper, at scale {scale}", "BERT 论文 {place}，规模 {scale}"),
    "reproduce_intro": (
        "{what}. Devlin et al. 2019; the paper's numbers are of its own models and data, for orientation.",
        "{what}。Devlin 等 2019；论文一栏是论文自己的模型与数据的结果，仅供对照。",
    ),
    "reproduce_table5": (
        "What pre-training tasks are worth (5.1): the same data, objectives taken away one by one",
        "预训练任务的作用（5.1）：数据相同，逐个去掉训练目标",
    ),
    "reproduce_table6": ("What size is worth (5.2)", "模型大小的作用（5.2）"),
    "reproduce_table7": (
        "Fine-tuning beside features of a frozen encoder (5.3)",
        "微调与冻结编码器取特征的对比（5.3）",
    ),
    "reproduce_mask_mix": (
        "How predicted tokens are shown, [MASK] / unchanged / random (C.2)",
        "待预测词元的呈现方式：[MASK] / 不变 / 随机（C.2）",
    ),
    "reproduce_steps": ("What longer pre-training is worth (C.1)", "更长预训练的作用（C.1）"),
    # Headings
    "reproduce_row": ("row", "行"),
    "reproduce_size": ("size here", "本次大小"),
    "reproduce_paper": ("paper", "论文"),
    "reproduce_perplexity": ("LM perplexity", "LM 困惑度"),
    "reproduce_frozen": (", features", "（特征）"),
    "reproduce_spoilt": (", {count} spoilt", "，{count} 次落空"),
    "reproduce_holds": ("What holds", "哪些结论成立"),
    "reproduce_ordering": ("in the paper", "论文中的次序"),
    "reproduce_pretraining": ("Pre-training runs", "预训练"),
    "reproduce_finetuning": ("Fine-tuning", "微调"),
    "reproduce_notes": ("Notes", "说明"),
    "reproduce_run": ("run", "训练"),
    "reproduce_objective": ("objective", "目标"),
    "reproduce_dials": ("steps × tokens, rate", "步数与学习率"),
    "reproduce_loss": ("MLM or LTR loss", "MLM 或 LTR 损失"),
    "reproduce_accuracy": ("its accuracy %", "准确率 %"),
    "reproduce_nsp": ("NSP accuracy %", "NSP 准确率 %"),
    "reproduce_minutes": ("minutes", "分钟"),
    "reproduce_run_dials": ("{steps:,} × {tokens:,}, {lr}", "{steps:,} 步 × {tokens:,} 词元，{lr}"),
    "reproduce_task": ("task", "任务"),
    "reproduce_examples": ("examples, train / dev", "样本，训练 / 开发"),
    "reproduce_epochs": ("epochs", "轮数"),
    "reproduce_batch_size": ("batch size", "批大小"),
    "reproduce_rate": ("learning rate", "学习率"),
    "reproduce_longest": ("longest input", "最大长度"),
    # What is said below tables
    "reproduce_summary": (
        "Of {all} orderings in the paper, {agrees} are found here, {disagrees} are the other way round, {within} lie "
        "within the spread, {untold} cannot be told, {missing} are not run yet.",
        "论文中的 {all} 个次序：{agrees} 个在此成立，{disagrees} 个相反，{within} 个在波动范围内，{untold} 个无法判断，{missing} 个尚未运行。",
    ),
    "reproduce_signs": (
        "✓ found · ✗ the other way round · ≈ within the spread: at most two standard errors apart · ? cannot be told: "
        "one run has no spread, all runs of a row came to nothing, or both rows are the same runs. The difference here, positive if as in the paper; in brackets the paper's.",
        "✓ 成立 · ✗ 相反 · ≈ 在波动范围内（相差不超过两个标准误）· ? 无法判断：只有一次运行、某一行的运行全部落空，或两行是同一批运行。数字为本次的差，正数表示与论文方向一致；括号内为论文的差。",
    ),
    "reproduce_note_cells": (
        "Mean ± standard deviation (number of runs), in percent but for perplexities; – not run yet, or not in the paper.",
        "均值 ± 标准差（运行次数），除困惑度外均为百分数；– 表示尚未运行或论文中没有。",
    ),
    "reproduce_note_held_out": (
        "On held-out text, after the last step; minutes on the machine at hand, with whatever else ran there.",
        "最后一步之后在留出文本上的结果；分钟数为本机所用，受同时运行的其他程序影响。",
    ),
    "reproduce_note_best": (
        "Scores are those of the best epoch on dev, for all rows alike. A run that comes to nothing is not repeated.",
        "得分取开发集上最好的一轮，各行相同。落空的运行不会重来。",
    ),
    # Notes
    "reproduce_note_missing": (
        "{count} of {total} tasks are left out, for their files are not there: {lacking}",
        "{total} 个任务中有 {count} 个因缺少文件而略去：{lacking}",
    ),
    "reproduce_note_like": (
        "QNLI-like is not QNLI: its pairs are made here from SQuAD's questions, each with the sentence that holds its "
        "answer and the one other that shares most words with it. The paper's numbers for QNLI are not put beside; "
        "only the order of the rows is compared.",
        "QNLI-like 不是 QNLI：句对由 SQuAD 的问题生成，每个问题配上含答案的句子，以及与问题共有词最多的另一个句子。不并列论文的 QNLI 数值，只比较各行的次序。",
    ),
    "reproduce_note_one_pretraining": (
        "There is one pre-training a row: the spread is that of fine-tuning alone. --pretrain-seeds 2 or more shows all of it.",
        "每行只做了一次预训练：波动仅来自微调。用 --pretrain-seeds 2 或更多可看到全部波动。",
    ),
    "reproduce_note_short": (
        "No input is longer than the examples of pre-training, {longest} tokens, since later positions were never "
        "trained; this shortens {names}. Longer contexts and documents are read through windows, other texts are cut.",
        "输入不超过预训练样本的长度（{longest} 个词元），因为更靠后的位置从未训练过；受影响的有 {names}。更长的上下文与文档用窗口读取，其他文本截断。",
    ),
    "reproduce_note_spoilt": (
        "Spoilt runs say the same of everything or have learnt nothing; they count in the mean all the same.",
        "落空的运行对一切输入给出同样的答案，或什么也没学到；它们同样计入均值。",
    ),
    "reproduce_note_scale": (
        "Sizes, steps and text are a small part of the paper's: numbers differ by much, and an ordering may, too.",
        "模型大小、步数和文本都远小于论文：数值相差很大，次序也可能不同。",
    ),
    "reproduce_note_no_nsp": (
        "Rows without NSP read the same examples as BERT, pairs whose B is random half of the time, as the paper's do "
        "(“exactly the same pre-training data”), or single segments where --data-single gives them.",
        "没有 NSP 的各行与 BERT 读同样的样本，即 B 有一半是随机的句对，与论文一致（“完全相同的预训练数据”）；若给出 --data-single 则读单段样本。",
    ),
    "reproduce_note_ladder": (
        "The paper's sizes are stood in for by a ladder of small ones: a third of the layers of each in proportion "
        "(1, 2, 2, 4, 4, 8), the scale's own width for the first four rows and a wider one for the last two (the "
        "paper's is 4/3 as wide; here the next width of heads of 64: 3/2 at tiny, 5/4 at mini), 64 a head; the second row has a "
        "quarter of the heads, at least one.",
        "论文的各个大小由一组小模型代替：层数按比例取三分之一（1、2、2、4、4、8）；前四行用该规模自己的宽度，后两行更宽"
        "（论文为 4/3；这里取头宽 64 时邻近的宽度：tiny 为 3/2，mini 为 5/4）；第二行的头数为四分之一，至少一个。",
    ),
    "reproduce_note_perplexity": (
        "Perplexity is e to the power of the held-out MLM loss. It has one value for each pre-training.",
        "困惑度为 e 的（留出集 MLM 损失）次方，每次预训练一个值。",
    ),
    "reproduce_note_features": (
        "Features: the encoder is frozen, and a BiLSTM of two layers, as wide as the encoder, reads the outputs named "
        "(in columns of features the last four layers side by side). Where an encoder has four layers or fewer, the last four are "
        "all: those rows are the same run.",
        "特征：编码器冻结，由两层、与编码器同宽的 BiLSTM 读取所列的输出（“特征”列为最后四层拼接）。编码器不超过四层时，最后四层就是全部层，这些行是同一次运行。",
    ),
    "reproduce_note_masks": (
        "Held-out losses are each on masks of the row's own mix, so they do not compare.",
        "各行的留出集损失都按自己的遮蔽方式计算，相互不可比。",
    ),
    "reproduce_note_steps": (
        "As in the paper, the models of one row are checkpoints of one run, whose learning rate falls to 0 at its end "
        "alone. LTR is Table 5's LTR & No NSP. The paper draws this figure without numbers; it says that MLM is ahead of LTR “almost "
        "immediately”, and that a million steps gain almost 1.0 % on MNLI over half of them.",
        "与论文一样，同一条曲线的各个模型是一次训练中的检查点，学习率到最后才降为 0。LTR 即表 5 的 LTR & No NSP。论文只有曲线没有数值；"
        "文中说 MLM “几乎立刻”超过 LTR，一百万步比五十万步在 MNLI 上高将近 1.0 %。",
    ),
    # Progress and plan
    "reproduce_pretrain": ("pre-train {name}", "预训练 {name}"),
    "reproduce_finetune": ("fine-tune {name}", "微调 {name}"),
    "reproduce_progress": ("{number} of {of} · {what}", "第 {number}/{of} 个 · {what}"),
    "reproduce_about": ("about {time}", "约 {time}"),
    "reproduce_all_left": ("all: about {time} left", "全部约剩 {time}"),
    "reproduce_plan": (
        "{count} trainings: {pretrain} of pre-training, {finetune} of fine-tuning",
        "共 {count} 次训练：预训练 {pretrain} 次，微调 {finetune} 次",
    ),
    "reproduce_plan_left": ("{count} are not done; about {time} in all", "还有 {count} 次未完成；共约 {time}"),
    "reproduce_plan_unknown": (
        "{count} are not done; how long they take is not known (--probe-seconds 0)",
        "还有 {count} 次未完成；所需时间未知（--probe-seconds 0）",
    ),
    "reproduce_plan_note": (
        "Times are estimates by the pace of a short trial; trainings that were begun count whole.",
        "时间按短暂试跑的速度估计；已开始的训练按全程计。",
    ),
    "reproduce_state_done": ("done", "已完成"),
    "reproduce_state_begun": ("begun", "已开始"),
    "reproduce_saved": ("Tables: {paths}", "表格：{paths}"),
}
