"""The words of `plan` and of `vocab extend`, in English and Chinese; `messages` makes them part of its own."""

from __future__ import annotations

PLAN_MESSAGES: dict[str, tuple[str, str]] = {
    # `vocab extend`
    "extend_word": ("new word", "新词"),
    "extend_pieces": ("until now", "原来切成"),
    "extend_count": ("count", "次数"),
    "extend_saved": ("tokens saved", "省去的词元"),
    "extend_entries": (
        "{added:,} new words: {slots_filled:,} in [unused] slots, {appended:,} appended; {size:,} entries",
        "新增 {added:,} 个词：{slots_filled:,} 个填入 [unused] 空位，{appended:,} 个追加；词表共 {size:,} 个词条",
    ),
    "extend_tokens_per_word": (
        "tokens per word: {before:.4f} before, {after:.4f} after",
        "每词词元数：之前 {before:.4f}，之后 {after:.4f}",
    ),
    "extend_unknown_words": (
        "words that are [UNK]: {before:,} before, {after:,} after",
        "[UNK] 词数：之前 {before:,}，之后 {after:,}",
    ),
    # `pretrain --budget`
    "budget_steps": ("{budget}: {steps:,} steps on this machine", "{budget}：在本机可训练 {steps:,} 步"),
    # `plan`
    "plan_parameters": ("Parameters", "参数"),
    "plan_embeddings": ("embeddings", "嵌入"),
    "plan_layers": ("layers", "各层"),
    "plan_pooler": ("pooler", "池化层"),
    "plan_norm": ("last normalisation", "末尾的归一化"),
    "plan_heads_mlm": ("masked-LM head", "MLM 输出头"),
    "plan_heads_nsp": ("next-sentence head", "NSP 输出头"),
    "plan_all": ("together", "合计"),
    "plan_memory": ("Memory", "内存"),
    "plan_weights": ("weights", "权重"),
    "plan_gradients": ("gradients", "梯度"),
    "plan_moments": ("the optimizer's moments", "优化器的矩"),
    "plan_activations": ("activations of a micro-batch", "一个微批的激活值"),
    "plan_logits": ("its logits", "其 logits"),
    "plan_peak": ("most in the probe, Python and torch included", "试跑中的峰值（含 Python 与 torch）"),
    "plan_arithmetic": ("Arithmetic", "运算量"),
    "plan_per_token": ("a token", "每词元"),
    "plan_per_step": ("a step", "每步"),
    "plan_per_run": ("the run", "整个训练"),
    "plan_disk": ("Disk", "磁盘"),
    "plan_checkpoint": ("a checkpoint", "一个检查点"),
    "plan_checkpoints": ("checkpoints, at most", "检查点最多共占"),
    "plan_model": ("the model", "模型"),
    "plan_data": ("Data", "数据"),
    "plan_examples": ("training examples", "训练样本"),
    "plan_tokens": ("tokens in an epoch", "一轮的词元数"),
    "plan_tokens_seen": ("tokens in the run, about", "整个训练的词元数（约）"),
    "plan_epochs": ("epochs", "轮数"),
    "plan_time": ("Time", "时间"),
    "plan_steps": ("steps", "步数"),
    "plan_here": ("on this machine", "在本机"),
    "plan_speed": ("speed", "速度"),
    "plan_growing": (" while batches grow", "（批量增大期间）"),
    "plan_speed_short": ("speed on cropped examples", "截短样本的速度"),
    "plan_speed_long": ("speed on longer examples", "较长样本的速度"),
    "plan_speed_whole": ("speed on whole examples", "完整样本的速度"),
    "plan_range": (
        "{likely} (between {best} and {worst}), without evaluations and checkpoints",
        "{likely}（在 {best} 与 {worst} 之间），不含评测与存检查点",
    ),
    "plan_not_measured": ("not measured (--probe-seconds 0)", "未测量（--probe-seconds 0）"),
    "plan_smaller_steps": (
        "A whole step of {whole:,} tokens was too long for the probe: its steps had {tokens:,}.",
        "完整的一步（{whole:,} 个词元）对试跑来说太长：试跑每步用 {tokens:,} 个。",
    ),
    "plan_loss": ("Loss", "损失"),
    "plan_uniform": ("MLM, every entry as likely", "MLM，所有词条等可能"),
    "plan_unigram": ("MLM, knowing only how often each token occurs", "MLM，只知道各词元的频率"),
    "plan_nsp": ("NSP, knowing only the share of the labels", "NSP，只知道标签的比例"),
    "plan_published": ("a published run of this shape", "同样大小的已发布训练"),
    "plan_published_run": (
        "{text}, {million_tokens:g} million tokens: MLM {mlm_loss:.2f} ({mlm_accuracy:.1%}), NSP {nsp_accuracy:.1%}; {page}",
        "{text}，{million_tokens:g} 百万词元：MLM {mlm_loss:.2f}（{mlm_accuracy:.1%}），NSP {nsp_accuracy:.1%}；{page}",
    ),
    "plan_loss_note": (
        "Levels of these shards, and what other runs reached on their own text: no forecast.",
        "以上是这些数据本身的水平，以及其他训练在各自文本上的结果，并非预测。",
    ),
}
