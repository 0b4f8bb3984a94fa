"""One Faust agent per file: read a batch, call one pure function, send."""
