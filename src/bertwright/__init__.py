"""Bertwright: BERT end to end, from raw text to a served model.

A public name is imported when it is first used, so that `bertwright --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertwright.batch import Batch, LossTerm
    from bertwright.config import BertConfig, DataConfig, FinetuneConfig, PretrainConfig, VocabConfig
    from bertwright.data.build import build_shards
    from bertwright.embedding import Embedder
    from bertwright.errors import BertwrightError
    from bertwright.estimators import BertClassifier, BertRegressor, BertTagger
    from bertwright.evaluation import evaluate
    from bertwright.export import convert
    from bertwright.extension import extend_vocabulary
    from bertwright.glue import run_glue
    from bertwright.model.bert import Bert
    from bertwright.pipelines import pipeline
    from bertwright.predict import Predictor
    from bertwright.recipes import get_recipe
    from bertwright.scoring import score_predictions
    from bertwright.tasks import ChoiceTask, ClassifyTask, QATask, RegressTask, TagTask
    from bertwright.text.vocabulary import train_vocabulary
    from bertwright.text.wordpiece import WordPiece
    from bertwright.training.finetune import finetune
    from bertwright.training.plan import plan_pretraining
    from bertwright.training.pretrain import pretrain
    from bertwright.training.trials import finetune_trials

_HOMES = {
    "Batch": "batch",
    "Bert": "model.bert",
    "BertClassifier": "estimators",
    "BertConfig": "config",
    "BertRegressor": "estimators",
    "BertTagger": "estimators",
    "BertwrightError": "errors",
    "ChoiceTask": "tasks",
    "ClassifyTask": "tasks",
    "DataConfig": "config",
    "Embedder": "embedding",
    "FinetuneConfig": "config",
    "LossTerm": "batch",
    "Predictor": "predict",
    "PretrainConfig": "config",
    "QATask": "tasks",
    "RegressTask": "tasks",
    "TagTask": "tasks",
    "VocabConfig": "config",
    "WordPiece": "text.wordpiece",
    "build_shards": "data.build",
    "convert": "export",
    "evaluate": "evaluation",
    "extend_vocabulary": "extension",
    "finetune": "training.finetune",
    "finetune_trials": "training.trials",
    "get_recipe": "recipes",
    "pipeline": "pipelines",
    "plan_pretraining": "training.plan",
    "pretrain": "training.pretrain",
    "run_glue": "glue",
    "score_predictions": "scoring",
    "train_vocabulary": "text.vocabulary",
}

__all__ = [
    "Batch",
    "Bert",
    "BertClassifier",
    "BertConfig",
    "BertRegressor",
    "BertTagger",
    "BertwrightError",
    "ChoiceTask",
    "ClassifyTask",
    "DataConfig",
    "Embedder",
    "FinetuneConfig",
    "LossTerm",
    "Predictor",
    "PretrainConfig",
    "QATask",
    "RegressTask",
    "TagTask",
    "VocabConfig",
    "WordPiece",
    "build_shards",
    "convert",
    "evaluate",
    "extend_vocabulary",
    "finetune",
    "finetune_trials",
    "get_recipe",
    "pipeline",
    "plan_pretraining",
    "pretrain",
    "run_glue",
    "score_predictions",
    "train_vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bertwright' has no attribute {name!r}")
    return getattr(import_module(f"bertwright.{_HOMES[name]}"), name)
