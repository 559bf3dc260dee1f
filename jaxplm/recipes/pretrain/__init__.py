"""Further pre-training, pre-training from scratch and vocabulary extension, all by masked language modelling."""
