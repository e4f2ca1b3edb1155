"""What the programs share that look after the Pi's own body (`pi-commerce-thermal`, `pi-commerce-power`)."""
