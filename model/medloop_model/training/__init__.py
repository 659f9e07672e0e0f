"""Training in torch: a teacher and its ternary student at home, then one step a mini-batch on a device."""
