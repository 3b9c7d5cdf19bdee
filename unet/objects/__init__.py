"""Objects of a mask: distance maps, splitting, numbering; knows nothing about the network."""
