"""A disk that holds a layout of volumes: `reading` tells what is, `disk` and `places` what to do (both pure)."""
