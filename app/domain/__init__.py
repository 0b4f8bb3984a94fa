"""The pure domain of Pix: fields, keys, decoding, decisions, expressions. Time is an argument."""
