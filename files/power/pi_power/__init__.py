"""The battery behind the socket: watched, told of, and acted upon before it is empty."""
