"""Instruction data to a LoRA adapter, an adapter to scores, scores to a comparison.

Every command is a module with a function of its own name, which takes the module's configuration:
`from finetune.evaluate import EvaluateConfig, evaluate`. Importing this package loads no torch.
"""
