"""Temperature, voltage and throttling of the board: read, told, and acted upon."""
