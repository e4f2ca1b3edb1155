"""Messages to people: runs on the Pi as root, with Python 3.9 and the library apprise."""
