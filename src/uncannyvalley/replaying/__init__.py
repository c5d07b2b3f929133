"""The recorded path under another head, from kept numbers alone: no network, no images."""
