"""Command line, HTTP service and durable jobs around dataset_rules and unet."""
