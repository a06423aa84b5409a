"""How good a model is: the metrics, one file each, and the evaluators that report them."""
