"""For those who operate: the dead letters and the events, whichever bus they are on."""
