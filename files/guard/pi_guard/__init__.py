"""The dead man's guard: settings of the network are put back unless a new connection proves that it still comes in."""
