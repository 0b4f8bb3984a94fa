"""The online model: learned one matured label at a time."""
