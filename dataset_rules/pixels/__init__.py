"""Reading and writing pixel files in every format; independent of rules, pairs and datasets."""
