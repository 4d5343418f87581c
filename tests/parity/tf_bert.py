"""A small BERT in TensorFlow, written from the paper: the oracle for checkpoints with the names of Google's release.

It is no test and knows nothing of this project. It runs under an interpreter that has TensorFlow:

    python tf_bert.py make CONFIG.json PREFIX --seed 0 --slots --shards 3 --dtype bfloat16
    python tf_bert.py run CONFIG.json PREFIX INPUTS.npz OUTPUTS.npz
    python tf_bert.py read PREFIX OUTPUTS.npz
    python tf_bert.py odd FOLDER

`make` saves a checkpoint and, as PREFIX.npz, what is in it. `run` computes `hidden_states` [layers + 1, B, T, H],
`pooled` [B, H], `mlm_logits` [B, T, V] and `nsp_logits` [B, 2] for `input_ids`, `token_type_ids` and `attention_mask`,
each [B, T]. `read` gives back every tensor of a checkpoint. `odd` saves checkpoints of other sorts.
In an .npz, bfloat16 stands as the uint16 of the same bits.

Paper: Devlin et al. 2019, and Vaswani et al. 2017, section 3.
"""

import argparse
import json
import os
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}

import numpy as np
import tensorflow as tf

EPSILON = 1e-12


def shapes(config):
    """Every variable of pre-training and its shape."""
    hidden, inner, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    found = {}

    def dense(name, rows, columns):
        found[f"{name}/kernel"] = [rows, columns]
        found[f"{name}/bias"] = [columns]

    def norm(name):
        found[f"{name}/beta"] = found[f"{name}/gamma"] = [hidden]

    found["bert/embeddings/word_embeddings"] = [words, hidden]
    found["bert/embeddings/token_type_embeddings"] = [config["type_vocab_size"], hidden]
    found["bert/embeddings/position_embeddings"] = [config["max_position_embeddings"], hidden]
    norm("bert/embeddings/LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{number}"
        for part in ("query", "key", "value"):
            dense(f"{layer}/attention/self/{part}", hidden, hidden)
        dense(f"{layer}/attention/output/dense", hidden, hidden)
        norm(f"{layer}/attention/output/LayerNorm")
        dense(f"{layer}/intermediate/dense", hidden, inner)
        dense(f"{layer}/output/dense", inner, hidden)
        norm(f"{layer}/output/LayerNorm")
    dense("bert/pooler/dense", hidden, hidden)
    dense("cls/predictions/transform/dense", hidden, hidden)
    norm("cls/predictions/transform/LayerNorm")
    found["cls/predictions/output_bias"] = [words]
    found["cls/seq_relationship/output_weights"] = [2, hidden]
    found["cls/seq_relationship/output_bias"] = [2]
    return found


def draw(config, *, seed, slots):
    """Draw values for every variable, and for the optimizer's two of each, at a step."""
    generator = np.random.default_rng(seed)
    values = {}
    for name, shape in shapes(config).items():
        values[name] = generator.normal(1.0 if name.endswith("/gamma") else 0.0, 0.1, shape).astype(np.float32)
        if slots:
            values[f"{name}/adam_m"] = generator.normal(0.0, 1e-3, shape).astype(np.float32)
            values[f"{name}/adam_v"] = generator.normal(0.0, 1e-3, shape).astype(np.float32) ** 2
    if slots:
        values["global_step"] = np.int64(1_000_000)
    return values


def plain(array):
    """Return an array that .npz can hold."""
    array = np.asarray(array)
    return array.view(np.uint16) if array.dtype == tf.bfloat16.as_numpy_dtype else array


def make(config, prefix, *, seed, slots, shards, dtype):
    """Save a checkpoint as TensorFlow 1 does; variables on several devices give several data files."""
    v1 = tf.compat.v1
    values = draw(config, seed=seed, slots=slots)
    with tf.Graph().as_default():
        variables = {}
        for number, (name, value) in enumerate(values.items()):
            kind = tf.as_dtype(dtype) if value.dtype == np.float32 else tf.as_dtype(value.dtype)
            with tf.device(f"/cpu:{number % shards}"):
                start = tf.constant(value.astype(kind.as_numpy_dtype))
                variables[name] = v1.get_variable(name, initializer=start, use_resource=False)
        saver = v1.train.Saver(list(variables.values()), sharded=shards > 1, write_version=v1.train.SaverDef.V2)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": shards})) as session:
            session.run(v1.global_variables_initializer())
            saver.save(session, prefix, write_meta_graph=False)
            saved = session.run(variables)
    np.savez(f"{prefix}.npz", **{name: plain(value) for name, value in saved.items()})


def normalize(x, gamma, beta):
    """Layer normalization over the last axis."""
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + EPSILON) * gamma + beta


def activation(config):
    """Return the function between the two matrices of the feed-forward part."""
    name = config.get("hidden_act", "gelu")
    if name == "gelu":
        return lambda x: 0.5 * x * (1.0 + tf.math.erf(x / np.sqrt(2.0).astype(np.float32)))
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        scale = np.sqrt(2.0 / np.pi).astype(np.float32)
        return lambda x: 0.5 * x * (1.0 + tf.tanh(scale * (x + 0.044715 * x**3)))
    return {"relu": tf.nn.relu, "tanh": tf.tanh}[name]


class Bert:
    """The forward pass, variable by variable."""

    def __init__(self, config, prefix):
        reader = tf.train.load_checkpoint(prefix)
        self.config = config
        self.get = lambda name: tf.cast(reader.get_tensor(name), tf.float32)
        self.has = reader.has_tensor
        self.act = activation(config)

    def dense(self, name, x):
        """A linear layer."""
        return tf.linalg.matmul(x, self.get(f"{name}/kernel")) + self.get(f"{name}/bias")

    def norm(self, name, x):
        """A layer normalization with its weights."""
        return normalize(x, self.get(f"{name}/gamma"), self.get(f"{name}/beta"))

    def attention(self, layer, x, mask):
        """Every position asks every position that the mask keeps, in several heads."""
        batch, length, hidden = x.shape
        heads = self.config["num_attention_heads"]

        def split(part):
            rows = self.dense(f"{layer}/attention/self/{part}", x)
            return tf.transpose(tf.reshape(rows, [batch, length, heads, hidden // heads]), [0, 2, 1, 3])

        query, key, value = split("query"), split("key"), split("value")
        scores = tf.linalg.matmul(query, key, transpose_b=True) / np.sqrt(hidden // heads).astype(np.float32)
        scores += (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -1e9
        mixed = tf.transpose(tf.linalg.matmul(tf.nn.softmax(scores), value), [0, 2, 1, 3])
        return self.dense(f"{layer}/attention/output/dense", tf.reshape(mixed, [batch, length, hidden]))

    def hidden_states(self, input_ids, token_type_ids, mask):
        """Return the embeddings' output and every layer's."""
        x = tf.gather(self.get("bert/embeddings/word_embeddings"), input_ids)
        x += tf.gather(self.get("bert/embeddings/token_type_embeddings"), token_type_ids)
        x += self.get("bert/embeddings/position_embeddings")[: input_ids.shape[1]]
        states = [self.norm("bert/embeddings/LayerNorm", x)]
        for number in range(self.config["num_hidden_layers"]):
            layer, x = f"bert/encoder/layer_{number}", states[-1]
            x = self.norm(f"{layer}/attention/output/LayerNorm", x + self.attention(layer, x, mask))
            inner = self.act(self.dense(f"{layer}/intermediate/dense", x))
            states.append(self.norm(f"{layer}/output/LayerNorm", x + self.dense(f"{layer}/output/dense", inner)))
        return states

    def __call__(self, inputs):
        """Return everything that the checkpoint has weights for."""
        states = self.hidden_states(inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
        outputs = {"hidden_states": tf.stack(states)}
        if self.has("bert/pooler/dense/kernel"):
            outputs["pooled"] = tf.tanh(self.dense("bert/pooler/dense", states[-1][:, 0]))
        if self.has("cls/predictions/output_bias"):
            x = self.act(self.dense("cls/predictions/transform/dense", states[-1]))
            x = self.norm("cls/predictions/transform/LayerNorm", x)
            words = self.get("bert/embeddings/word_embeddings")
            bias = self.get("cls/predictions/output_bias")
            outputs["mlm_logits"] = tf.linalg.matmul(x, words, transpose_b=True) + bias
        if self.has("cls/seq_relationship/output_weights"):
            weights = self.get("cls/seq_relationship/output_weights")
            bias = self.get("cls/seq_relationship/output_bias")
            outputs["nsp_logits"] = tf.linalg.matmul(outputs["pooled"], weights, transpose_b=True) + bias
        return {name: value.numpy() for name, value in outputs.items()}


def read(prefix):
    """Return every tensor of a checkpoint, which TensorFlow's three ways of reading must agree on."""
    reader = tf.train.load_checkpoint(prefix)
    found = {}
    for name, shape in tf.train.list_variables(prefix):
        value = reader.get_tensor(name)
        kind = tf.as_dtype(value.dtype)
        (again,) = tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[kind])
        assert list(value.shape) == shape == again.shape.as_list(), name
        assert value.tobytes() == again.numpy().tobytes(), name
        found[name] = plain(value)
    return found


def odd(folder):
    """Save what is no BERT: objects of TensorFlow 2, a variable in slices, and more names than one block holds."""
    objects = tf.train.Checkpoint(step=tf.Variable(7, dtype=tf.int64), weights=tf.Variable([1.5, 2.5]))
    objects.write(str(folder / "objects"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        v1 = tf.compat.v1
        whole = v1.get_variable("whole", initializer=tf.constant([3.0]), use_resource=False)
        halves = v1.get_variable("halves", [6, 2], partitioner=v1.fixed_size_partitioner(3), use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver([whole, *halves]).save(session, str(folder / "slices"), write_meta_graph=False)
    names = [f"a/rather/long/name/of/a/small/variable/number_{number:05d}" for number in range(12_000)]
    tensors = [tf.constant([number], tf.int32) for number in range(len(names))]
    tf.raw_ops.SaveV2(
        prefix=str(folder / "many"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
    )


def main():
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    arguments = {
        "make": ["config", "prefix"],
        "run": ["config", "prefix", "inputs", "outputs"],
        "read": ["prefix", "outputs"],
        "odd": ["folder"],
    }
    for command, names in arguments.items():
        sub = commands.add_parser(command)
        for name in names:
            sub.add_argument(name)
        if command == "make":
            sub.add_argument("--seed", type=int, default=0)
            sub.add_argument("--slots", action="store_true", help="the optimizer's variables and the step too")
            sub.add_argument("--shards", type=int, default=1)
            sub.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    config = json.loads(Path(given.config).read_text(encoding="utf-8")) if "config" in given else {}
    match given.command:
        case "make":
            make(config, given.prefix, seed=given.seed, slots=given.slots, shards=given.shards, dtype=given.dtype)
        case "run":
            np.savez(given.outputs, **Bert(config, given.prefix)(dict(np.load(given.inputs))))
        case "read":
            np.savez(given.outputs, **read(given.prefix))
        case "odd":
            odd(Path(given.folder))


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    main()
