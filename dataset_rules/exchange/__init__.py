"""Datasets on their way to and from other tools: COCO, nnU-Net, Cellpose and YOLO."""
