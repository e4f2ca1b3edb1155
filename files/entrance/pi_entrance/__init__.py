"""The entrance's certificate and who may come: runs on the Pi as root, with Python 3.9, openssl and dehydrated."""
