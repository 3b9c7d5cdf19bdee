"""Objects in masks: distance maps, splitting, numbering; independent of the network."""
