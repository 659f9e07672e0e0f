"""BiTMedViT: the ternary network, its torch-free engine, its checkpoints and its training."""
